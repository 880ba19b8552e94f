/** The control plane's API as a workload uses it: join, renew, ask for access. HTTPS only. */
import { EXIT, Failure } from "../error.ts";
import { certificateHash } from "../identity/certificate.ts";
import { CONTROL_SERVER_NAME } from "../identity/spiffe.ts";
import type { Token } from "../identity/token.ts";
import type { ConfigKeyEntry } from "./identity-file.ts";

export interface ServiceName {
  readonly namespace: string;
  readonly service: string;
}

export interface JoinBody extends ServiceName {
  readonly csr: string;
  readonly natsKey: string;
  readonly serviceAccount: string;
  readonly upstreams: readonly ServiceName[];
  /** Of an earlier join from the same folder. */
  readonly instance?: string;
}

export interface AccessAnswer {
  readonly natsJwt: string;
  readonly keys: readonly string[];
  readonly expiresAt: number;
}

export interface JoinAnswer extends AccessAnswer {
  readonly chain: string;
  readonly bundle: readonly string[];
  readonly configKeys: readonly ConfigKeyEntry[];
  readonly natsUrl: string;
  /** Roots of the bus (none: public ones); absent: those of the mesh. */
  readonly natsCa?: readonly string[];
  readonly instance: string;
  readonly trustDomain: string;
  readonly refused: readonly (ServiceName & { readonly reason: string })[];
}

/** How a workload proves itself to the control plane once it has joined. */
export interface Credentials {
  readonly keyPem: string;
  readonly chainPem: string;
  readonly bundle: readonly string[];
}

const TIMEOUT_MS = 5_000;

/**
 * The mesh's roots, fetched without trust and accepted only when one of them is pinned by the
 * token. Sends nothing secret.
 *
 * @throws Failure `token_foreign` when none matches; `controlplane_unreachable`.
 */
export async function fetchBundle(url: string, token: Token): Promise<readonly string[]> {
  const answer = await call(`${url}/v1/trust-bundle`, { tls: { rejectUnauthorized: false } });
  const bundle = isRecord(answer) ? texts(answer["bundle"]) : [];
  const pinned = bundle.filter((root) => token.roots.includes(certificateHash(root)));
  if (pinned.length > 0) return pinned;
  throw new Failure(
    "token_foreign",
    `the control plane at ${url} has another root than the token names: they are different meshes`,
    "use a token of this control plane, or the address of the token's",
    { exit: EXIT.refused },
  );
}

/** Joins with a token over a connection verified by `roots`. */
export async function join(
  url: string,
  roots: readonly string[],
  token: string,
  body: JoinBody,
): Promise<JoinAnswer> {
  const answer = await call(`${url}/v1/join`, {
    tls: { ca: [...roots], serverName: CONTROL_SERVER_NAME },
    headers: { authorization: `Bearer ${token}` },
    body,
  });
  return joinAnswer(url, answer);
}

/** A new certificate and NATS credentials, by the current certificate. */
export async function renew(
  url: string,
  by: Credentials,
  body: { readonly instance: string; readonly csr: string; readonly natsKey: string },
): Promise<JoinAnswer> {
  return joinAnswer(url, await call(`${url}/v1/svid`, { tls: mutualTls(by), body }));
}

/** The right to read one more service. */
export async function requestAccess(
  url: string,
  by: Credentials,
  body: ServiceName & { readonly instance: string; readonly natsKey: string },
): Promise<AccessAnswer> {
  const answer = await call(`${url}/v1/access`, { tls: mutualTls(by), body });
  const access = accessAnswer(answer);
  if (access === undefined) throw strange(url);
  return access;
}

function mutualTls(by: Credentials) {
  return {
    ca: [...by.bundle],
    cert: by.chainPem,
    key: by.keyPem,
    serverName: CONTROL_SERVER_NAME,
  };
}

interface Call {
  readonly tls: BunFetchRequestInitTLS;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: object;
}

async function call(url: string, { tls, headers, body }: Call): Promise<unknown> {
  let response: Response;
  let text: string;
  try {
    response = await fetch(url, {
      method: body === undefined ? "GET" : "POST",
      headers: { "content-type": "application/json", ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      tls,
      // A pooled connection could have been verified differently.
      keepalive: false,
      redirect: "error",
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    text = await response.text();
  } catch (cause) {
    throw unreachable(url, cause);
  }
  const answer = parse(text);
  if (response.ok) return answer;
  throw refusal(url, response.status, answer);
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function refusal(url: string, status: number, answer: unknown): Failure {
  const field = (name: string) => {
    const value = isRecord(answer) ? answer[name] : undefined;
    return typeof value === "string" ? value : "";
  };
  const message = field("detail") || field("title") || `HTTP status ${status}`;
  return new Failure(
    field("code") || "controlplane_refused",
    `the control plane refused: ${message}`,
    field("fix") || `see the log of the control plane at ${new URL(url).origin}`,
    { status, exit: status >= 500 ? EXIT.unreachable : EXIT.refused },
  );
}

function unreachable(url: string, cause: unknown): Failure {
  const code = isRecord(cause) && typeof cause["code"] === "string" ? cause["code"] : "";
  const why = code || (cause instanceof Error ? cause.message : String(cause));
  if (/NOT_YET_VALID|HAS_EXPIRED/.test(code)) {
    return new Failure(
      "clocks_differ",
      `by this machine's clock the control plane at ${new URL(url).origin} is of another time: ${why}`,
      "set both clocks: compare date -u here and there",
      { cause, exit: EXIT.unreachable, status: 503 },
    );
  }
  return new Failure(
    "controlplane_unreachable",
    `cannot reach the control plane at ${new URL(url).origin}: ${why}`,
    "start it, or correct --controlplane",
    { cause, exit: EXIT.unreachable, status: 503 },
  );
}

function strange(url: string): Failure {
  return new Failure(
    "controlplane_answer",
    `${new URL(url).origin} answers, but not as a control plane`,
    "correct --controlplane, and use the same version of weft on both sides",
    { exit: EXIT.unreachable, status: 502 },
  );
}

function joinAnswer(url: string, value: unknown): JoinAnswer {
  const access = accessAnswer(value);
  if (access === undefined || !isRecord(value)) throw strange(url);
  const { chain, natsUrl, instance, trustDomain, refused } = value;
  const bundle = texts(value["bundle"]);
  const configKeys = records(value["configKeys"]).flatMap(({ kid, key }) =>
    typeof kid === "string" && typeof key === "string" ? [{ kid, key }] : [],
  );
  if (typeof chain !== "string" || typeof natsUrl !== "string") throw strange(url);
  if (typeof instance !== "string" || typeof trustDomain !== "string") throw strange(url);
  if (bundle.length === 0 || configKeys.length === 0) throw strange(url);
  const declined = records(refused).map((item) => ({
    namespace: String(item["namespace"]),
    service: String(item["service"]),
    reason: String(item["reason"]),
  }));
  const rest = { chain, bundle, configKeys, natsUrl, instance, trustDomain, refused: declined };
  const natsCa = value["natsCa"] === undefined ? {} : { natsCa: texts(value["natsCa"]) };
  return { ...access, ...rest, ...natsCa };
}

function accessAnswer(value: unknown): AccessAnswer | undefined {
  if (!isRecord(value)) return undefined;
  const { natsJwt, expiresAt } = value;
  if (typeof natsJwt !== "string" || typeof expiresAt !== "number") return undefined;
  return { natsJwt, expiresAt, keys: texts(value["keys"]) };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function records(value: unknown): Record<string, unknown>[] {
  return Array.isArray(value) ? value.filter(isRecord) : [];
}

function texts(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((item) => typeof item === "string") : [];
}
