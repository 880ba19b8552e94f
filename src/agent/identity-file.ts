/** What a workload keeps of its membership: one file, so that it is always of one piece. */
import { join } from "node:path";
import { Failure } from "../error.ts";
import { readSecret, writeSecret } from "../identity/secret-file.ts";
import type { Svid } from "../identity/svid.ts";
import type { Logger } from "../telemetry/log.ts";

export interface ConfigKeyEntry {
  readonly kid: string;
  readonly key: string;
}

/** Everything a workload needs to be itself again after a restart. */
export interface Membership {
  readonly instance: string;
  readonly namespace: string;
  readonly service: string;
  readonly serviceAccount: string;
  readonly trustDomain: string;
  readonly svid: Svid;
  /** Roots of the mesh, PEM. */
  readonly bundle: readonly string[];
  readonly configKeys: readonly ConfigKeyEntry[];
  readonly controlplane: string;
  /** Of the bus, several with commas. */
  readonly natsUrl: string;
  /** Roots of the bus (none: public ones); absent: those of the mesh. */
  readonly natsCa?: readonly string[];
  readonly natsJwt: string;
  /** Seed of the NATS user key; made here, never sent. */
  readonly natsSeed: string;
  /** Document keys the JWT opens besides the workload's own. */
  readonly keys: readonly string[];
  /** When the certificate came, by this host's clock; unix milliseconds. */
  readonly issuedAt: number;
  /** When the JWT ends, unix milliseconds. */
  readonly natsExpiresAt: number;
}

const NAME = "identity.json";

/**
 * The membership kept in `folder`; undefined when there is none.
 *
 * @throws Failure when the file cannot be read, is open to others, or is damaged.
 */
export function readMembership(folder: string): Membership | undefined {
  const path = join(folder, NAME);
  const text = readSecret(path);
  if (text === undefined) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = undefined;
  }
  if (isMembership(value)) return value;
  throw new Failure(
    "identity_damaged",
    `${path} is damaged`,
    `remove the file and start again with a new token`,
  );
}

/**
 * Writes it to disk. With `log` a failure is only told: once a workload has joined, a full disk
 * must not let its certificate run out.
 */
export function keepMembership(folder: string, membership: Membership, log?: Logger): void {
  try {
    writeSecret(join(folder, NAME), JSON.stringify(membership));
  } catch (error) {
    if (log === undefined) throw error;
    log.error("the identity cannot be kept on disk; a restart would lack it", { error });
  }
}

const TEXTS: readonly (keyof Membership)[] = [
  "instance",
  "namespace",
  "service",
  "serviceAccount",
  "trustDomain",
  "controlplane",
  "natsUrl",
  "natsJwt",
  "natsSeed",
];

function isMembership(value: unknown): value is Membership {
  if (typeof value !== "object" || value === null) return false;
  const fields = value as Partial<Record<keyof Membership, unknown>>;
  if (!TEXTS.every((name) => typeof fields[name] === "string")) return false;
  if (!Array.isArray(fields.bundle) || !Array.isArray(fields.configKeys)) return false;
  if (!Array.isArray(fields.keys) || typeof fields.natsExpiresAt !== "number") return false;
  if (typeof fields.issuedAt !== "number") return false;
  const { svid } = fields;
  return typeof svid === "object" && svid !== null && "keyPem" in svid && "chainPem" in svid;
}
