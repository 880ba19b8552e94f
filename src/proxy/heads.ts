/** The heads a proxy writes: the peer's own text, with as few changes as the hop needs. */
import {
  CHUNKED_FIELD,
  CLOSE_FIELD,
  cutFields,
  encodeRequestHead,
  encodeResponseHead,
  upgradeFields,
} from "../http/h1/encode.ts";
import type { RequestHead, ResponseHead } from "../http/message.ts";
import type { CompiledEdit } from "../route/headers.ts";
import { editPath, originForm } from "../route/target.ts";
import type { CompiledBackend, CompiledRule } from "../snapshot/snapshot.ts";
import {
  newRequestId,
  newTraceparent,
  nextTraceparent,
  replaceTraceparent,
} from "../telemetry/trace.ts";

const SLASH = 0x2f;
const KEEP_ALIVE_FIELD = "connection: keep-alive\r\n";
const HOST = "host";

/** What routing decided about the request's head. */
export interface RequestChange {
  readonly rule: CompiledRule | undefined;
  readonly backend: CompiledBackend | undefined;
  /** Trimmed prefix the route matched. */
  readonly prefix: string;
}

/** The head for the next hop: ids kept or created, hop-by-hop fields gone, edits applied. */
export function requestHeadFor(
  head: RequestHead,
  change: RequestChange,
  random: () => number,
): string {
  let add = "";
  if (head.requestId === undefined) add += `x-request-id: ${newRequestId(random)}\r\n`;
  const trace = head.traceparent;
  const next = trace === undefined ? undefined : nextTraceparent(trace, random);
  if (trace === undefined) add += `traceparent: ${newTraceparent(random)}\r\n`;
  if (head.chunked) add += CHUNKED_FIELD;
  if (head.upgrade !== undefined) add += upgradeFields(head.upgrade);
  const { rule, backend, prefix } = change;
  const edit = backend?.requestHeaders;
  const hostname = rule?.hostname;
  if (hostname !== undefined) add += `host: ${hostname}\r\n`;
  // HTTP/1.0 may come without Host; HTTP/1.1 may not go without it.
  else if (head.minor === 0 && head.field(HOST) === undefined) add += `host: ${head.authority}\r\n`;
  const target = targetFor(head, rule, prefix);
  const text = encodeRequestHead(head, {
    add: edit === undefined ? add : add + edit.lines,
    ...cutsFor(head, edit, hostname !== undefined),
    ...(target === undefined ? {} : { target }),
  });
  return next === undefined || trace === undefined ? text : replaceTraceparent(text, trace, next);
}

/** Undefined = as sent. Absolute form was meant for a proxy and ends here. */
function targetFor(
  head: RequestHead,
  rule: CompiledRule | undefined,
  prefix: string,
): string | undefined {
  if (rule?.path !== undefined) return editPath(head.target, rule.path, prefix);
  if (head.target.charCodeAt(0) === SLASH || head.target === "*") return undefined;
  return originForm(head.target);
}

function cutsFor(
  head: RequestHead | ResponseHead,
  edit: CompiledEdit | undefined,
  host: boolean,
): { readonly cuts?: readonly number[] } {
  if (!host && (edit === undefined || edit.drops.length === 0)) return {};
  const names = [...(edit?.drops ?? [])];
  if (host) names.push(HOST);
  return { cuts: cutFields(head, names) };
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
  return encodeResponseHead(head, { add, ...cutsFor(head, edit, false) });
}

/** The 101 that turns the connection into a tunnel. */
export function switchingHeadFor(head: ResponseHead, upgrade: string): string {
  return encodeResponseHead(head, { add: upgradeFields(head.upgrade ?? upgrade) });
}
