/**
 * Which rule of a route table governs a request. The table arrives in order of precedence, so the
 * first match wins; matching a request compares text in place and allocates nothing.
 */
import type { RequestHead } from "../http/message.ts";
import type { RouteMatchDocument } from "../snapshot/document.ts";
import { hasPrefix, originForm, pathEnd, trimPrefix } from "./target.ts";

/** The facts of a request that routing reads. */
export type RouteFacts = Pick<RequestHead, "method" | "target" | "authority" | "field">;

/** One compiled match; `Rule` is whatever the caller attaches to it. */
export interface RouteMatch<Rule> {
  readonly rule: Rule;
  /** The trimmed prefix that `replacePrefix` edits cut; for an exact path the path itself. */
  readonly prefix: string;
  readonly exact: boolean;
  readonly method: string | undefined;
  readonly headers: readonly NameValue[];
  readonly query: readonly NameValue[];
  readonly hosts: readonly HostPattern[];
}

interface NameValue {
  readonly name: string;
  readonly value: string;
}

interface HostPattern {
  /** Lower case; for a wildcard the text from the dot on. */
  readonly text: string;
  readonly wildcard: boolean;
}

/** Compiles the matches of a table; a match naming a rule that is not there is left out. */
export function compileMatches<Rule>(
  documents: readonly RouteMatchDocument[],
  rules: readonly Rule[],
): readonly RouteMatch<Rule>[] {
  const compiled: RouteMatch<Rule>[] = [];
  for (const document of documents) {
    const rule = rules[document.rule];
    if (rule === undefined) continue;
    const exact = document.path.type === "exact";
    compiled.push({
      rule,
      prefix: exact ? document.path.value : trimPrefix(document.path.value),
      exact,
      method: document.method,
      headers: document.headers.map(({ name, value }) => ({ name: name.toLowerCase(), value })),
      query: document.query,
      hosts: document.hostnames.map(hostPattern),
    });
  }
  return compiled;
}

/** The first match in order of precedence; undefined = no route. */
export function firstMatch<Rule>(
  matches: readonly RouteMatch<Rule>[],
  facts: RouteFacts,
): RouteMatch<Rule> | undefined {
  const target = facts.target.charCodeAt(0) === 0x2f ? facts.target : originForm(facts.target);
  const end = pathEnd(target);
  for (let i = 0; i < matches.length; i++) {
    const match = matches[i]!;
    if (match.exact) {
      if (end !== match.prefix.length || !target.startsWith(match.prefix)) continue;
    } else if (!hasPrefix(target, end, match.prefix)) continue;
    if (match.method !== undefined && match.method !== facts.method) continue;
    if (match.headers.length > 0 && !matchesHeaders(match.headers, facts)) continue;
    if (match.query.length > 0 && !matchesQuery(match.query, target, end)) continue;
    if (match.hosts.length > 0 && !matchesHost(match.hosts, facts.authority)) continue;
    return match;
  }
  return undefined;
}

function matchesHeaders(headers: readonly NameValue[], facts: RouteFacts): boolean {
  for (let i = 0; i < headers.length; i++) {
    const header = headers[i]!;
    if (facts.field(header.name) !== header.value) return false;
  }
  return true;
}

function matchesQuery(wanted: readonly NameValue[], target: string, end: number): boolean {
  if (end === target.length) return false;
  for (let i = 0; i < wanted.length; i++) {
    const { name, value } = wanted[i]!;
    if (!hasParameter(target, end + 1, name, value)) return false;
  }
  return true;
}

/** Compares the first parameter of that name; a repeated one decides nothing further. */
function hasParameter(target: string, from: number, name: string, value: string): boolean {
  for (let start = from; start <= target.length; ) {
    let end = target.indexOf("&", start);
    if (end === -1) end = target.length;
    let equals = target.indexOf("=", start);
    if (equals === -1 || equals > end) equals = end;
    if (same(target, start, equals, name)) {
      return same(target, Math.min(equals + 1, end), end, value);
    }
    start = end + 1;
  }
  return false;
}

/** Whether a piece of a query is `text`, after decoding where it is encoded. */
function same(target: string, start: number, end: number, text: string): boolean {
  for (let at = start; at < end; at++) {
    const code = target.charCodeAt(at);
    if (code === 0x25 || code === 0x2b) return decoded(target.slice(start, end)) === text;
  }
  return end - start === text.length && target.startsWith(text, start);
}

function decoded(piece: string): string | undefined {
  try {
    return decodeURIComponent(piece.replaceAll("+", " "));
  } catch {
    // Not UTF-8 after decoding: no configured value can equal it.
    return undefined;
  }
}

function hostPattern(hostname: string): HostPattern {
  const lower = hostname.toLowerCase();
  return lower.startsWith("*.")
    ? { text: lower.slice(1), wildcard: true }
    : { text: lower, wildcard: false };
}

function matchesHost(hosts: readonly HostPattern[], authority: string): boolean {
  const host = hostOf(authority);
  for (let i = 0; i < hosts.length; i++) {
    const pattern = hosts[i]!;
    if (pattern.wildcard) {
      if (host.length > pattern.text.length && host.endsWith(pattern.text)) return true;
    } else if (host === pattern.text) return true;
  }
  return false;
}

/** The host of an authority: without port and without one trailing dot. */
function hostOf(authority: string): string {
  let end = authority.length;
  const colon = authority.lastIndexOf(":");
  if (colon !== -1 && colon > authority.lastIndexOf("]")) end = colon;
  if (end > 1 && authority.charCodeAt(end - 1) === 0x2e) end -= 1;
  return end === authority.length ? authority : authority.slice(0, end);
}
