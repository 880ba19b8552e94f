/**
 * What the surrounding environment may and may not do to weft and to its children.
 */
import { join } from "node:path";
import { usage } from "./grammar.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Refuses an environment that switches certificate checks off.
 *
 * The mesh's promise is that every peer is verified, and this variable would break it silently.
 */
export function refuseUnsafe(env: Environment): void {
  if (env["NODE_TLS_REJECT_UNAUTHORIZED"] === "0") {
    throw usage(
      "NODE_TLS_REJECT_UNAUTHORIZED=0 would switch certificate checks off",
      "unset NODE_TLS_REJECT_UNAUTHORIZED and start again",
    );
  }
}

/** Variables that would inject code into a compiled executable, or that carry secrets. */
function isPrivate(name: string): boolean {
  return name === "BUN_BE_BUN" || name === "BUN_OPTIONS" || /^WEFT_.*TOKEN/.test(name);
}

/** The environment children get: without injection and without tokens. */
export function childEnvironment(
  env: Environment,
  added: Readonly<Record<string, string>> = {},
): Record<string, string> {
  const kept: Record<string, string> = {};
  for (const [name, value] of Object.entries(env)) {
    if (value !== undefined && !isPrivate(name)) kept[name] = value;
  }
  return { ...kept, ...added };
}

const PROXIES = ["http_proxy", "https_proxy", "all_proxy"] as const;

/**
 * Removes from this process what would inject code into children that inherit by default, and the
 * HTTP proxies: what weft dials is this host or its control plane, and one such proxy is weft.
 */
export function dropInherited(env: Record<string, string | undefined>): void {
  delete env["BUN_BE_BUN"];
  delete env["BUN_OPTIONS"];
  for (const name of PROXIES) {
    delete env[name];
    delete env[name.toUpperCase()];
  }
}

/** `$XDG_STATE_HOME/weft`, else `/var/lib/weft` for root, else `~/.local/state/weft`. */
export function stateFolder(env: Environment, uid: number): string {
  const xdg = env["XDG_STATE_HOME"];
  if (xdg?.startsWith("/")) return join(xdg, "weft");
  if (uid === 0) return "/var/lib/weft";
  const home = env["HOME"];
  if (home === undefined || home === "") {
    throw usage("no folder for state: HOME is not set", "give one with --data DIR");
  }
  return join(home, ".local/state/weft");
}
