/** Finds the control plane, the token and the root certificate for the verbs. */
import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { EXIT, Failure } from "../../src/error.ts";
import { parseToken, type Token } from "../../src/identity/token.ts";
import { type Environment, stateFolder } from "../environment.ts";
import type { Settings } from "../flags.ts";
import { usage } from "../grammar.ts";
import { tokenOf } from "../start.ts";
import { number, text } from "./json.ts";

/** Where requests go and how the answerer proves itself. */
export interface Place {
  readonly url: string;
  /** Absent: only what needs no token. */
  readonly token?: string;
  /** Hexadecimal SHA-256 of acceptable roots, from the token. */
  readonly roots: readonly string[];
  /** Root certificates in PEM that lie on this host. */
  readonly ca?: string;
}

export function locate(set: Settings, env: Environment, uid: number): Place {
  const data = dataFolder(set, env, uid);
  const token = tokenOf(set) ?? readIf(join(data, "admin.token"))?.trim();
  const inside = token === undefined ? undefined : readToken(token);
  const url = set.controlplane ?? runFile(data, "api") ?? inside?.cp;
  if (url === undefined || url === "") {
    throw new Failure(
      "no_controlplane",
      `no control plane runs from ${data}`,
      "start one: weft controlplane, or name it: --controlplane https://HOST:17010",
      { exit: EXIT.unreachable },
    );
  }
  const ca = readIf(join(data, "ca", "root.pem"));
  return {
    url: url.replace(/\/+$/, ""),
    roots: inside?.roots ?? [],
    ...(token === undefined ? {} : { token }),
    ...(ca === undefined ? {} : { ca }),
  };
}

/** The folder of the control plane meant: as said, else of one of this host, else of `weft up`. */
export function dataFolder(set: Settings, env: Environment, uid: number): string {
  const own = ownDataFolder(set, env, uid);
  if (set.data !== undefined || runs(own)) return own;
  const ofUp = join(stateFolder(env, uid), "up", "controlplane");
  return runs(ofUp) ? ofUp : own;
}

export function ownDataFolder(set: Settings, env: Environment, uid: number): string {
  return resolve(set.data ?? join(stateFolder(env, uid), "controlplane"));
}

function runs(data: string): boolean {
  const run = readIf(join(data, "run.json"));
  if (run === undefined) return false;
  try {
    return existsSync(`/proc/${number(JSON.parse(run), "pid")}`);
  } catch {
    return false;
  }
}

/** What a process of this host wrote into its data folder; undefined when there is none. */
export function runFile(data: string, field: "api" | "metrics"): string | undefined {
  const run = readIf(join(data, "run.json"));
  if (run === undefined) return undefined;
  try {
    return text(JSON.parse(run), field) || undefined;
  } catch {
    return undefined;
  }
}

function readToken(token: string): Token {
  const inside = parseToken(token);
  if (inside !== undefined) return inside;
  throw usage("the token is damaged", "copy it again, or create one: weft token create");
}

/** The text of a file; undefined when there is none. */
export function readIf(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code !== "EACCES") return undefined;
    throw new Failure("unreadable", `cannot read ${path}`, "run as the control plane's user", {
      exit: EXIT.failed,
    });
  }
}
