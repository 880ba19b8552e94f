/** Writes heads by copying what was decoded; only what a proxy must change is rebuilt. */
import type { RequestHead, ResponseHead } from "../message.ts";
import { eachField } from "./fields.ts";

/** The body follows in chunks. */
export const CHUNKED_FIELD = "transfer-encoding: chunked\r\n";
export const CLOSE_FIELD = "connection: close\r\n";
/** The chunk of 0 and an empty trailer section. */
export const LAST_CHUNK = "0\r\n\r\n";
/** What ends the data of a chunk. */
export const CRLF = "\r\n";
export const CONTINUE = "HTTP/1.1 100 Continue\r\n\r\n";

/** How a head differs from the one that was decoded. */
export interface HeadEdit {
  /** Instead of the head's own `cuts`; see `cutFields`. */
  readonly cuts?: readonly number[];
  /** Lines to add, each with its CRLF; "" = none. They come last and cannot be nominated away. */
  readonly add: string;
}

export interface RequestEdit extends HeadEdit {
  /** Instead of the target as sent. */
  readonly target?: string;
}

/** The head as HTTP/1.1, the empty line included. Framing fields other than length are cut. */
export function encodeRequestHead(head: RequestHead, edit: RequestEdit): string {
  const cuts = edit.cuts ?? head.cuts;
  const asSent = edit.target === undefined && head.minor === 1;
  if (asSent) return keep(head.text, 0, cuts) + edit.add + CRLF;
  const line = `${head.method} ${edit.target ?? head.target} HTTP/1.1\r\n`;
  return line + keep(head.text, head.fieldsStart, cuts) + edit.add + CRLF;
}

/** The head as HTTP/1.1, the empty line included. */
export function encodeResponseHead(head: ResponseHead, edit: HeadEdit): string {
  const cuts = edit.cuts ?? head.cuts;
  if (head.minor === 1) return keep(head.text, 0, cuts) + edit.add + CRLF;
  const line = `HTTP/1.1 ${head.status} ${head.statusText}\r\n`;
  return line + keep(head.text, head.fieldsStart, cuts) + edit.add + CRLF;
}

/** `text` from `start` without the cut ranges and without the empty line. */
function keep(text: string, start: number, cuts: readonly number[]): string {
  const end = text.length - 2;
  if (cuts.length === 0) return text.slice(start, end);
  let kept = "";
  let from = start;
  for (let i = 0; i < cuts.length; i += 2) {
    const cutStart = cuts[i]!;
    if (cutStart > from) kept += text.slice(from, cutStart);
    from = cuts[i + 1]!;
  }
  return from < end ? kept + text.slice(from, end) : kept;
}

/** The cuts of `head` and those of every field named in `names` (lower case) besides. */
export function cutFields(
  head: RequestHead | ResponseHead,
  names: readonly string[],
): readonly number[] {
  if (names.length === 0) return head.cuts;
  const known = new Set<number>();
  for (let i = 0; i < head.cuts.length; i += 2) known.add(head.cuts[i]!);
  const cuts: number[] = [];
  eachField(head.text, head.fieldsStart, (line, nameEnd, lineEnd) => {
    const name = head.text.slice(line, nameEnd).toLowerCase();
    if (known.has(line) || names.includes(name)) cuts.push(line, lineEnd + 2);
  });
  return cuts;
}

/** `Connection` and `Upgrade` of a message whose own are cut, to pass an upgrade on. */
export function upgradeFields(upgrade: string): string {
  return `connection: upgrade\r\nupgrade: ${upgrade}\r\n`;
}

/** Opens a chunk of `size` bytes; the data and CRLF follow. */
export function chunkPrefix(size: number): string {
  return `${size.toString(16)}\r\n`;
}

/** Closes a chunked body, with the trailer lines that a decoder passed. */
export function lastChunk(trailers: string): string {
  return trailers === "" ? LAST_CHUNK : `0\r\n${trailers}\r\n`;
}

/** Bytes of latin1 text: heads and framing. */
export function writeLatin1(text: string): Buffer {
  return Buffer.from(text, "latin1");
}

const STATUS_TEXT: Readonly<Record<number, string>> = {
  200: "OK",
  204: "No Content",
  301: "Moved Permanently",
  302: "Found",
  303: "See Other",
  307: "Temporary Redirect",
  308: "Permanent Redirect",
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  408: "Request Timeout",
  409: "Conflict",
  413: "Content Too Large",
  414: "URI Too Long",
  415: "Unsupported Media Type",
  417: "Expectation Failed",
  421: "Misdirected Request",
  422: "Unprocessable Content",
  429: "Too Many Requests",
  431: "Request Header Fields Too Large",
  500: "Internal Server Error",
  501: "Not Implemented",
  502: "Bad Gateway",
  503: "Service Unavailable",
  504: "Gateway Timeout",
  505: "HTTP Version Not Supported",
  507: "Insufficient Storage",
};

/** The usual phrase of a status; "" for one without. */
export function statusText(status: number): string {
  return STATUS_TEXT[status] ?? "";
}

/**
 * A whole answer of our own. `fields` are lines with their CRLF; the length is added. With
 * `headOnly` (an answer to HEAD) the body is declared and not sent.
 */
export function synthesize(status: number, fields: string, body: string, headOnly = false): Buffer {
  const content = Buffer.from(body);
  const length = `content-length: ${content.length}\r\n`;
  const head = writeLatin1(`HTTP/1.1 ${status} ${statusText(status)}\r\n${fields}${length}\r\n`);
  return headOnly || content.length === 0 ? head : Buffer.concat([head, content]);
}
