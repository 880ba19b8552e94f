/**
 * Talks to the control plane's API: verified TLS, bearer token, problems turned into failures.
 *
 * Every control plane answers under one name, whatever address it is dialled by; its root is the
 * one on this host or the one whose hash the token carries.
 */
import type { Page } from "../../src/api/answers.ts";
import { EXIT, type ExitCode, Failure } from "../../src/error.ts";
import { text } from "./json.ts";
import type { Place } from "./locate.ts";

const SERVER_NAME = "controlplane.weft";

/** Longest wait for one answer. Backups of big stores are the slowest. */
const TIMEOUT_MS = 60_000;

export interface Client {
  readonly url: string;
  /** Answers have the shapes of src/api/answers.ts, which both sides are built with. */
  readonly get: <T>(path: string) => Promise<T>;
  readonly post: <T>(path: string, body: unknown) => Promise<T>;
  readonly remove: <T>(path: string) => Promise<T>;
  /** The answer's bytes. */
  readonly download: (path: string) => Promise<Uint8Array>;
}

/** A refusal whose parts matter to the caller: `issues` of an apply, for one. */
export class Refused extends Failure {
  readonly body: unknown;

  constructor(failure: Failure, body: unknown) {
    super(failure.code, failure.message, failure.fix, {
      exit: failure.exit,
      status: failure.status,
    });
    this.body = body;
  }
}

export function createClient(place: Place): Client {
  let ca = place.ca;
  const send = async (method: string, path: string, body?: unknown): Promise<Response> => {
    ca ??= await fetchPinned(place);
    const response = await dial(place.url + path, {
      method,
      headers: {
        accept: "application/json",
        ...(place.token === undefined ? {} : { authorization: `Bearer ${place.token}` }),
        ...(body === undefined ? {} : { "content-type": "application/json" }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      tls: { ca, serverName: SERVER_NAME },
    });
    if (response.ok) return response;
    throw await refusal(response);
  };
  const json = async <T>(response: Response): Promise<T> => {
    const body = await response.text();
    return JSON.parse(body === "" ? "{}" : body) as T;
  };
  return {
    url: place.url,
    get: async (path) => json(await send("GET", path)),
    post: async (path, body) => json(await send("POST", path, body)),
    remove: async (path) => json(await send("DELETE", path)),
    download: async (path) => (await send("GET", path)).bytes(),
  };
}

type Init = RequestInit & { readonly tls: Record<string, unknown> };

async function dial(url: string, init: Init): Promise<Response> {
  try {
    return await fetch(url, { ...init, signal: AbortSignal.timeout(TIMEOUT_MS) });
  } catch (error) {
    throw unreachable(url, error);
  }
}

function unreachable(url: string, error: unknown): Failure {
  const origin = new URL(url).origin;
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const options = { exit: EXIT.unreachable, cause: error } as const;
  if (/NOT_YET_VALID|HAS_EXPIRED/.test(code)) {
    return new Failure(
      "clocks_differ",
      `by this machine's clock ${origin} is of another time (${code})`,
      "set both clocks: compare date -u here and there",
      options,
    );
  }
  if (/CERT|SELF_SIGNED|VERIFY|ALTNAME/.test(code)) {
    return new Failure(
      "wrong_root",
      `${origin} does not prove that it is your mesh's control plane (${code})`,
      "check the address, and that --data or --token-file belong to this mesh",
      options,
    );
  }
  const why = code === "" ? (error instanceof Error ? error.name : String(error)) : code;
  return new Failure(
    "unreachable",
    `cannot reach the control plane at ${origin} (${why})`,
    "is it running? start it: weft controlplane, or name another: --controlplane URL",
    options,
  );
}

async function refusal(response: Response): Promise<Failure> {
  let body: unknown = {};
  try {
    body = await response.json();
  } catch {
    // Whatever answered is not the API; its status still says something.
  }
  const message = text(body, "detail") || text(body, "title") || `HTTP ${response.status}`;
  const failure = new Failure(
    text(body, "code") || "failed",
    message,
    text(body, "fix") || fixOf(response.status),
    { exit: exitOf(response.status), status: response.status },
  );
  return new Refused(failure, body);
}

function exitOf(status: number): ExitCode {
  return [400, 401, 403, 409, 413, 422].includes(status) ? EXIT.refused : EXIT.failed;
}

function fixOf(status: number): string {
  if (status === 401) return "give an admin token: --token-file <data>/admin.token";
  if (status === 403) return "the token is not allowed to do this; use an admin token";
  return "see the control plane's log";
}

/**
 * The trust bundle, fetched unverified and compared with the hash the token carries. The
 * connection that fetched it is not used for anything else, and no secret goes over it.
 */
async function fetchPinned(place: Place): Promise<string> {
  if (place.roots.length === 0) {
    throw new Failure(
      "no_root",
      `nothing here says how ${place.url} proves itself`,
      "give the control plane's --data folder, or a token: --token-file FILE",
      { exit: EXIT.usage },
    );
  }
  const url = `${place.url}/v1/trust-bundle`;
  const response = await dial(url, {
    headers: { connection: "close" },
    tls: { rejectUnauthorized: false, serverName: SERVER_NAME },
  });
  const answer = await response.text();
  const pems = answer.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  const found = pems
    .map((pem) => pem.replaceAll("\\n", "\n"))
    .find((pem) => pinned(pem, place.roots));
  if (found !== undefined) return found;
  throw new Failure(
    "wrong_root",
    `${place.url} belongs to another mesh than the token`,
    "check the address, or use a token of that mesh",
    { exit: EXIT.unreachable },
  );
}

function pinned(pem: string, roots: readonly string[]): boolean {
  const der = Buffer.from(pem.replace(/-----[^-]+-----|\s/g, ""), "base64");
  return roots.includes(new Bun.CryptoHasher("sha256").update(der).digest("hex"));
}

/** As many as the API gives at once. */
const PAGE = 1000;

/** Follows a list's cursor to its end, or until `limit` items are there. */
export async function getAll<T>(client: Client, path: string, limit = Infinity): Promise<T[]> {
  const items: T[] = [];
  const list = path.includes("?") ? path : `${path}?limit=${PAGE}`;
  let cursor: string | undefined;
  do {
    const at = cursor === undefined ? "" : `&cursor=${encodeURIComponent(cursor)}`;
    const page: Page<T> = await client.get(list + at);
    items.push(...page.items);
    cursor = page.next;
  } while (cursor !== undefined && items.length < limit);
  return items.slice(0, limit);
}
