/** The heads a proxy writes: the peer's own text, with as few changes as the hop needs. */
import {
  CHUNKED_FIELD,
  CLOSE_FIELD,
  cutFields,
  encodeRequestHead,
  encodeResponseHead,
  synthesize,
  upgradeFields,
} from "../http/h1/encode.ts";
import type { RequestHead, ResponseHead } from "../http/message.ts";
import type { CompiledEdit } from "../route/headers.ts";
import { editPath, isBareAuthority, originForm } from "../route/target.ts";
import type { CompiledBackend, CompiledRule } from "../snapshot/snapshot.ts";
import { newIdLines, newRequestIdLine, newTraceparentLine } from "../telemetry/trace.ts";

const SLASH = 0x2f;
const KEEP_ALIVE_FIELD = "connection: keep-alive\r\n";
const HOST = "host";
const MAX_FORWARDS = "max-forwards";
const NONE: readonly string[] = [];

/** What routing decided about the request's head. */
export interface RequestChange {
  readonly rule: CompiledRule | undefined;
  readonly backend: CompiledBackend | undefined;
  /** Trimmed prefix the route matched. */
  readonly prefix: string;
}

/** The head for the next hop: `ids` added, hop-by-hop fields gone, edits applied. */
export function requestHeadFor(head: RequestHead, change: RequestChange, ids: string): string {
  let add = ids;
  if (head.chunked) add += CHUNKED_FIELD;
  if (head.upgrade !== undefined) add += upgradeFields(head.upgrade);
  const { rule, backend, prefix } = change;
  const edit = backend?.requestHeaders;
  const hostname = rule?.hostname;
  let drops = NONE;
  if (hostname !== undefined) {
    add += `host: ${hostname}\r\n`;
    drops = [HOST];
  }
  // HTTP/1.0 may come without Host; HTTP/1.1 may not go without it.
  else if (head.minor === 0 && head.field(HOST) === undefined) add += `host: ${head.authority}\r\n`;
  const target = targetFor(head, rule, prefix);
  if (edit !== undefined) add += edit.lines;
  const hops = hopsLeft(head);
  if (hops !== undefined) {
    add += `${MAX_FORWARDS}: ${hops - 1}\r\n`;
    drops = [...drops, MAX_FORWARDS];
  }
  const cuts = cutsFor(head, edit, drops);
  return encodeRequestHead(head, target === undefined ? { add, cuts } : { add, cuts, target });
}

/** Field lines for the ids that a request came without. */
export function missingIds(head: RequestHead, random: () => number): string {
  if (head.requestId === undefined) {
    return head.traceparent === undefined ? newIdLines(random) : newRequestIdLine(random);
  }
  return head.traceparent === undefined ? newTraceparentLine(random) : "";
}

/** Undefined = as sent. Absolute form was meant for a proxy and ends here. */
function targetFor(
  head: RequestHead,
  rule: CompiledRule | undefined,
  prefix: string,
): string | undefined {
  if (rule?.path !== undefined) return editPath(head.target, rule.path, prefix);
  if (head.target.charCodeAt(0) === SLASH || head.target === "*") return undefined;
  if (head.method === "OPTIONS" && isBareAuthority(head.target)) return "*";
  return originForm(head.target);
}

const HOPS_MAX = 255;

/**
 * What is left of `Max-Forwards`, which counts for OPTIONS and TRACE only (RFC 9110, 7.6.2).
 * Undefined = as many as it takes.
 */
export function hopsLeft(head: RequestHead): number | undefined {
  if (head.method !== "OPTIONS" && head.method !== "TRACE") return undefined;
  const value = head.field(MAX_FORWARDS) ?? "";
  return /^\d+$/.test(value) ? Math.min(Number(value), HOPS_MAX) : undefined;
}

function cutsFor(
  head: RequestHead | ResponseHead,
  edit: CompiledEdit | undefined,
  names: readonly string[],
): readonly number[] {
  return cutFields(head, edit === undefined ? names : [...edit.drops, ...names]);
}

/** How the answer reaches this caller. */
export interface AnswerFraming {
  /** The body goes out in chunks of ours. */
  readonly chunked: boolean;
  /** The connection closes after it. */
  readonly close: boolean;
  /** The caller speaks HTTP/1.`minor`. */
  readonly minor: number;
}

export function responseHeadFor(
  head: ResponseHead,
  edit: CompiledEdit | undefined,
  framing: AnswerFraming,
): string {
  let add = "";
  if (framing.chunked) add += CHUNKED_FIELD;
  if (framing.close) add += CLOSE_FIELD;
  else if (framing.minor === 0) add += KEEP_ALIVE_FIELD;
  if (edit !== undefined) add += edit.lines;
  const cuts = cutsFor(head, edit, NONE);
  // Most answers need no change at all.
  if (add === "" && cuts.length === 0 && head.minor === 1) return head.text;
  return encodeResponseHead(head, { add, cuts });
}

/** The 101 that turns the connection into a tunnel. */
export function switchingHeadFor(head: ResponseHead, upgrade: string): string {
  return encodeResponseHead(head, { add: upgradeFields(head.upgrade ?? upgrade) });
}

const TEXT_FIELD = "content-type: text/plain; charset=utf-8\r\n";

/** An answer of our own. `fields` are extra lines with their CRLF. */
export function ownAnswer(
  status: number,
  fields: string,
  body: string,
  how: { readonly close: boolean; readonly headOnly: boolean },
): Uint8Array {
  const type = body === "" ? "" : TEXT_FIELD;
  const connection = how.close ? CLOSE_FIELD : "";
  return synthesize(status, type + fields + connection, body, how.headOnly);
}
