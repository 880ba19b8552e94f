/**
 * One spelling for every path: what policy, routing and the application see is the same text.
 * Done once, before anything is decided. Levels are those of Istio's `pathNormalization`.
 */

export const PATH_LEVELS = ["NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"] as const;

/**
 * `BASE`: RFC 3986, section 6.2.2: escapes of unreserved characters decoded, others in upper case,
 * dot segments gone, and `\` is `/`. `MERGE_SLASHES`: `//` is `/` as well.
 * `DECODE_AND_MERGE_SLASHES`: escaped `/` and `\` are `/` too, before all that.
 */
export type PathLevel = (typeof PATH_LEVELS)[number];

/** `REPORT_ONLY`: nothing is changed; what the default would change is counted. */
export type PathNormalization = PathLevel | "REPORT_ONLY";

export const DEFAULT_LEVEL: PathLevel = "DECODE_AND_MERGE_SLASHES";

const PERCENT = 0x25;
const DOT = 0x2e;
const SLASH = 0x2f;
const QUESTION = 0x3f;
const BACKSLASH = 0x5c;

/** A dot segment with a parameter: some servers drop the parameter and go up, others do not. */
const DOT_PARAMETER = /\/\.\.?(?:;|%3B)/;

/**
 * The target with its path in normal form; the query, scheme and authority stay as sent. The same
 * string where nothing changes. Undefined: a `%` without two hexadecimal digits, `%00`, or `..;`,
 * which readers of the path would take differently. `*` and authority form have no path.
 *
 * Applying it twice is applying it once: `%25` is never decoded.
 */
export function normalizeTarget(target: string, level: PathLevel): string | undefined {
  if (level === "NONE") return target;
  const start = pathStart(target);
  if (start < 0) return target;
  const end = suspect(target, start);
  if (end < 0) return target;
  const query = target.indexOf("?", start);
  const stop = query < 0 ? target.length : query;
  const path = normalizePath(target.slice(start, stop), level);
  if (path === undefined) return undefined;
  return target.slice(0, start) + path + target.slice(stop);
}

/** Where the path begins; -1 = there is none. */
function pathStart(target: string): number {
  if (target.charCodeAt(0) === SLASH) return 0;
  const scheme = target.indexOf("://");
  if (scheme < 1) return -1;
  const query = target.indexOf("?", scheme);
  const start = target.indexOf("/", scheme + 3);
  return query >= 0 && start > query ? -1 : start;
}

/**
 * -1 for the paths nearly everybody sends: no escape, no backslash, no `//`, no segment that
 * begins with a dot. Looks at each character once and allocates nothing.
 */
function suspect(target: string, start: number): number {
  let previous = 0;
  for (let at = start; at < target.length; at++) {
    const code = target.charCodeAt(at);
    if (code === QUESTION) return -1;
    if (code === PERCENT || code === BACKSLASH) return at;
    if (previous === SLASH && (code === SLASH || code === DOT)) return at;
    previous = code;
  }
  return -1;
}

function normalizePath(path: string, level: PathLevel): string | undefined {
  const decoded = decode(path, level === "DECODE_AND_MERGE_SLASHES");
  if (decoded === undefined || DOT_PARAMETER.test(decoded)) return undefined;
  const plain = removeDotSegments(decoded);
  return level === "BASE" ? plain : plain.replace(/\/{2,}/g, "/");
}

/** Every escape in its one form; see `normalizeTarget`. */
function decode(path: string, slashes: boolean): string | undefined {
  let text = "";
  for (let at = 0; at < path.length; at++) {
    const code = path.charCodeAt(at);
    if (code === BACKSLASH) text += "/";
    else if (code !== PERCENT) text += path[at];
    else {
      const hex = path.slice(at + 1, at + 3);
      if (!/^[0-9a-fA-F]{2}$/.test(hex)) return undefined;
      const value = Number.parseInt(hex, 16);
      if (value === 0) return undefined;
      at += 2;
      if (isUnreserved(value)) text += String.fromCharCode(value);
      else if (slashes && (value === SLASH || value === BACKSLASH)) text += "/";
      else text += `%${hex.toUpperCase()}`;
    }
  }
  return text;
}

/** RFC 3986, section 2.3. */
function isUnreserved(code: number): boolean {
  return /[A-Za-z0-9._~-]/.test(String.fromCharCode(code));
}

/** RFC 3986, section 5.2.4, on a path that begins with a slash. */
function removeDotSegments(path: string): string {
  if (!path.includes("/.")) return path;
  const segments = path.split("/");
  const kept: string[] = [];
  for (let i = 1; i < segments.length; i++) {
    const segment = segments[i]!;
    const last = i === segments.length - 1;
    if (segment === "..") kept.pop();
    if (segment !== "." && segment !== "..") kept.push(segment);
    else if (last) kept.push("");
  }
  return `/${kept.join("/")}`;
}
