/**
 * NATS decentralised authentication: one operator, a system account, the control plane's account
 * with the documents, the workloads' account, and user JWTs that say what each holder may do.
 *
 * Workloads are kept in an account of their own because NATS does not check reply subjects: an
 * answer goes wherever its request said, with the answerer's rights. Inside one account a workload
 * could ask for a document "with the answer to" `$JS.API.STREAM.DELETE.…`, and did (tested on
 * 2.15.1). From another account, answers come back to that account and can touch nothing here.
 *
 * Operator and account JWTs are the same bytes at every start (fixed issue time, deterministic
 * signature), so that a running nats-server can be recognised by its configuration.
 */
import { createHash } from "node:crypto";
import { Failure } from "../error.ts";
import { base32, createNkey, type Nkey, nkeyFromSeed } from "./nkey.ts";
import { directGetSubject, documentSubject, type NatsRights } from "./rights.ts";
import { readSecret, writeSecret } from "./secret-file.ts";

/** Whom a nats-server must be told to let in: JWTs and public keys, no secrets. */
export interface NatsTrust {
  readonly operatorJwt: string;
  readonly systemAccount: string;
  readonly systemJwt: string;
  /** The control plane's account: documents, JetStream, and the requests of workloads. */
  readonly account: string;
  readonly accountJwt: string;
  /** The workloads' account: reads documents and sends requests, has no JetStream. */
  readonly workloads: string;
  readonly workloadsJwt: string;
}

/** A user JWT and the seed that answers the server's challenge. */
export interface NatsCredentials {
  readonly jwt: string;
  readonly seed: string;
}

export interface NatsUser {
  /** Shown in the server's logs: `<ns>.<svc>.<instance>`. */
  readonly name: string;
  /** `U…`, made by the holder; its seed never travels. */
  readonly publicKey: string;
  /** Absent: everything inside the control plane's account, for itself. */
  readonly rights?: NatsRights;
  /** Unix milliseconds; the server disconnects the holder then. */
  readonly expiresAt: number;
}

export interface NatsAuthority {
  readonly trust: NatsTrust;
  /** Signs a user JWT; about 0.1 ms. `now` in unix milliseconds. */
  issueUser(user: NatsUser, now: number): string;
}

const UNLIMITED = { subs: -1, data: -1, payload: -1 } as const;
/** Bytes of one message; registrations and acknowledgements are a few KiB at most. */
export const WORKLOAD_PAYLOAD_MAX = 64 * 1024;
/** Subscriptions beyond two for each subject: an inbox, and some to spare. */
const WORKLOAD_SUBS_SPARE = 16;
const ACCOUNT_LIMITS = {
  ...UNLIMITED,
  imports: -1,
  exports: -1,
  wildcards: true,
  conn: -1,
  leaf: 0,
} as const;
const JETSTREAM_LIMITS = { mem_storage: 0, disk_storage: -1, streams: -1, consumer: -1 } as const;
/** What crosses from the control plane's account to the workloads'. */
const CROSSINGS = [
  { name: "documents", type: "stream", subject: documentSubject(">") },
  { name: "current", type: "service", subject: directGetSubject(">") },
  { name: "requests", type: "service", subject: "weft.rpc.>" },
  { name: "acknowledgements", type: "service", subject: "weft.ack.>" },
  { name: "statistics", type: "service", subject: "weft.stats.>" },
] as const;
/** 2023-11-14: any constant in the past serves. */
const FIXED_ISSUE_TIME = 1_700_000_000;

interface Claims {
  readonly name: string;
  readonly subject: string;
  readonly issuedAt: number;
  readonly expiresAt?: number;
  readonly nats: object;
}

function base64url(text: string): string {
  return Buffer.from(text, "utf8").toString("base64url");
}

function signJwt(signer: Nkey, claims: Claims): string {
  const body = {
    iat: claims.issuedAt,
    ...(claims.expiresAt === undefined ? {} : { exp: claims.expiresAt }),
    iss: signer.publicKey,
    name: claims.name,
    sub: claims.subject,
    nats: claims.nats,
  };
  const jti = base32(createHash("sha256").update(JSON.stringify(body)).digest());
  const header = base64url(JSON.stringify({ typ: "JWT", alg: "ed25519-nkey" }));
  const signed = `${header}.${base64url(JSON.stringify({ jti, ...body }))}`;
  return `${signed}.${signer.sign(Buffer.from(signed, "latin1")).toString("base64url")}`;
}

function accountJwt(operator: Nkey, account: Nkey, name: string, more: object): string {
  return signJwt(operator, {
    name,
    subject: account.publicKey,
    issuedAt: FIXED_ISSUE_TIME,
    nats: {
      limits: ACCOUNT_LIMITS,
      default_permissions: { pub: {}, sub: {} },
      authorization: {},
      ...more,
      type: "account",
      version: 2,
    },
  });
}

function authorityOf(keys: Keys): NatsAuthority {
  const { operator, system, account, workloads } = keys;
  const trust: NatsTrust = {
    operatorJwt: signJwt(operator, {
      name: "weft",
      subject: operator.publicKey,
      issuedAt: FIXED_ISSUE_TIME,
      nats: { system_account: system.publicKey, type: "operator", version: 2 },
    }),
    systemAccount: system.publicKey,
    systemJwt: accountJwt(operator, system, "SYS", {}),
    account: account.publicKey,
    accountJwt: accountJwt(operator, account, "MESH", {
      limits: { ...ACCOUNT_LIMITS, ...JETSTREAM_LIMITS },
      exports: CROSSINGS,
    }),
    workloads: workloads.publicKey,
    workloadsJwt: accountJwt(operator, workloads, "WORKLOADS", {
      imports: CROSSINGS.map((each) => ({ ...each, account: account.publicKey })),
    }),
  };
  return {
    trust,
    issueUser(user, now) {
      const rights =
        user.rights === undefined
          ? { pub: {}, sub: {} }
          : { pub: { allow: user.rights.publish }, sub: { allow: user.rights.subscribe } };
      const limits =
        user.rights === undefined
          ? UNLIMITED
          : {
              ...UNLIMITED,
              payload: WORKLOAD_PAYLOAD_MAX,
              subs: user.rights.subscribe.length * 2 + WORKLOAD_SUBS_SPARE,
            };
      return signJwt(user.rights === undefined ? account : workloads, {
        name: user.name,
        subject: user.publicKey,
        issuedAt: Math.floor(now / 1000),
        expiresAt: Math.floor(user.expiresAt / 1000),
        nats: { ...rights, ...limits, type: "user", version: 2 },
      });
    },
  };
}

const FIX_SEEDS =
  "restore the file from a backup, or remove it: every proxy then has to join again";

interface Keys {
  readonly operator: Nkey;
  readonly system: Nkey;
  readonly account: Nkey;
  readonly workloads: Nkey;
}

/** Reads the seeds from `path` (operator, system, control plane, workloads) or makes them. */
export function openNatsAuthority(path: string): NatsAuthority {
  const stored = readSecret(path);
  if (stored === undefined) {
    const operator = createNkey("operator");
    const system = createNkey("account");
    const account = createNkey("account");
    const workloads = createNkey("account");
    const all = [operator, system, account, workloads];
    writeSecret(path, all.map(({ seed }) => `${seed}\n`).join(""));
    return authorityOf({ operator, system, account, workloads });
  }
  const [first = "", ...rest] = stored.trimEnd().split("\n");
  const operator = nkeyFromSeed("operator", first);
  const [system, account, workloads] = rest.map((seed) => nkeyFromSeed("account", seed));
  if (
    operator === undefined ||
    system === undefined ||
    account === undefined ||
    workloads === undefined
  ) {
    throw new Failure("nats_seed_corrupt", `${path} does not hold four NATS seeds`, FIX_SEEDS);
  }
  return authorityOf({ operator, system, account, workloads });
}

/** Reads a NATS credentials file: a JWT block and a seed block between dashed lines. */
export function parseNatsCredentials(text: string): NatsCredentials {
  const blocks = [...text.matchAll(/-{3,}BEGIN [A-Z ]+-{3,}\s+(\S+)\s+-{3,}END [A-Z ]+-{3,}/g)];
  const jwt = blocks[0]?.[1];
  const seed = blocks[1]?.[1];
  if (jwt === undefined || seed === undefined || nkeyFromSeed("user", seed) === undefined) {
    throw new Failure(
      "nats_credentials_invalid",
      "the NATS credentials file has no user JWT with its seed",
      "write one with the tool of your NATS operator, for a user of the mesh's account",
    );
  }
  return { jwt, seed };
}

/** The account a holder of these credentials belongs to; "" when the JWT cannot be read. */
export function accountOf({ jwt }: NatsCredentials): string {
  try {
    const claims: unknown = JSON.parse(
      Buffer.from(jwt.split(".")[1] ?? "", "base64url").toString(),
    );
    const { iss, nats } = claims as { readonly iss?: unknown; readonly nats?: unknown };
    // A signing key of the account is named as issuer, and the account beside it.
    const { issuer_account } = (nats ?? {}) as { readonly issuer_account?: unknown };
    return String(issuer_account ?? iss ?? "");
  } catch {
    return "";
  }
}

/** Answer to a server's challenge. */
export function signNonce(credentials: NatsCredentials, nonce: string): string {
  const key = nkeyFromSeed("user", credentials.seed);
  if (key === undefined) {
    throw new Failure(
      "nats_credentials_invalid",
      "the NATS seed of this workload is not a user seed",
      "remove the data folder and join again with a new token",
    );
  }
  return key.sign(Buffer.from(nonce, "utf8")).toString("base64url");
}
