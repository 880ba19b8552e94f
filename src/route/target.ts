/**
 * Request targets as routing sees them: origin form, cut at the query, compared by segment.
 * Everything works on the text as sent; nothing here decodes.
 */
import type { PathEdit } from "../snapshot/document.ts";

const SLASH = 0x2f;

/** Absolute form without scheme and authority; `*` and authority form count as `/`. */
export function originForm(target: string): string {
  if (target.charCodeAt(0) === SLASH) return target;
  const scheme = target.indexOf("://");
  if (scheme < 1) return "/";
  for (let at = scheme + 3; at < target.length; at++) {
    const code = target.charCodeAt(at);
    if (code === SLASH) return target.slice(at);
    if (code === 0x3f) return `/${target.slice(at)}`;
  }
  return "/";
}

/** Absolute form with neither path nor query: for OPTIONS the server itself (RFC 9112, 3.2.4). */
export function isBareAuthority(target: string): boolean {
  const scheme = target.indexOf("://");
  return scheme >= 1 && !/[/?]/.test(target.slice(scheme + 3));
}

/** Where the path of an origin-form target ends: at the first `?`, else at the end. */
export function pathEnd(target: string): number {
  const query = target.indexOf("?");
  return query === -1 ? target.length : query;
}

/** The Gateway API ignores a trailing slash of a prefix; `/` becomes the empty prefix. */
export function trimPrefix(prefix: string): string {
  return prefix.endsWith("/") ? prefix.slice(0, -1) : prefix;
}

/** `prefix` is trimmed. `/foo` covers `/foo` and `/foo/bar`, never `/foobar`. */
export function hasPrefix(target: string, end: number, prefix: string): boolean {
  if (!target.startsWith(prefix)) return false;
  const length = prefix.length;
  return end === length || (end > length && target.charCodeAt(length) === SLASH);
}

/**
 * The target after a path edit, in origin form; the query stays. `matched` is the trimmed prefix
 * that the route matched.
 */
export function editPath(target: string, edit: PathEdit, matched: string): string {
  const origin = originForm(target);
  const end = pathEnd(origin);
  const query = origin.slice(end);
  if (edit.type === "replaceFull") {
    return (edit.value.startsWith("/") ? edit.value : `/${edit.value}`) + query;
  }
  const path = trimPrefix(edit.value) + origin.slice(matched.length, end);
  return (path.startsWith("/") ? path : `/${path}`) + query;
}
