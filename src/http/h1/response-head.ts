import { isReason, type Reason } from "../../error.ts";
import type { HeaderField, ResponseHead } from "../message.ts";
import { CLASS, CR, SP, VALUE } from "./chars.ts";
import { cutFieldsNamed, FieldScan, findField, listFields, scanFields } from "./fields.ts";
import type { H1Limits } from "./limits.ts";
import { Malformed } from "./malformed.ts";
import { slice, upgradeOf } from "./request-head.ts";

class DecodedResponseHead implements ResponseHead {
  readonly text: string;
  readonly fieldsStart: number;
  readonly minor: number;
  readonly status: number;
  readonly statusText: string;
  readonly contentLength: number;
  readonly chunked: boolean;
  readonly keepAlive: boolean;
  readonly upgrade: string | undefined;
  readonly cuts: readonly number[];
  readonly reason: Reason | undefined;
  readonly keepAliveTimeout: number;

  constructor(text: string, line: StatusLine, scan: FieldScan, keepAlive: boolean) {
    this.text = text;
    this.fieldsStart = line.end;
    this.minor = line.minor;
    this.status = line.status;
    this.statusText = line.statusText;
    this.contentLength = scan.contentLength;
    this.chunked = scan.chunked;
    this.keepAlive = keepAlive;
    this.upgrade = upgradeOf(text, line.minor, scan);
    this.cuts = scan.takeCuts();
    this.reason = known(slice(text, scan.reasonStart, scan.reasonEnd));
    this.keepAliveTimeout = scan.keepAliveTimeout;
  }

  field(name: string): string | undefined {
    return findField(this.text, this.fieldsStart, name);
  }

  fields(): HeaderField[] {
    return listFields(this.text, this.fieldsStart);
  }
}

/** A reason becomes a label: whatever else a peer says must not. */
function known(reason: string | undefined): Reason | undefined {
  return reason !== undefined && isReason(reason) ? reason : undefined;
}

/** Offset of the blank before the phrase. */
const PHRASE = 12;

interface StatusLine {
  readonly minor: number;
  readonly status: number;
  readonly statusText: string;
  readonly end: number;
}

/** Whether an answer to `method` with this status carries a body at all (RFC 9112, 6.3). */
export function answerHasBody(method: string, status: number): boolean {
  if (status < 200 || status === 204 || status === 304) return false;
  return method !== "HEAD" && !(method === "CONNECT" && status < 300);
}

/**
 * Decodes a whole response head to a request by `method`, the empty line included. Of an answer
 * that has no body, `chunked` is false and the connection outlives a missing length.
 * @throws Malformed
 */
export function decodeResponseHead(text: string, method: string, limits: H1Limits): ResponseHead {
  // RFC 9112, 4: the blank after the status is sent even where no phrase follows.
  if (text.charCodeAt(PHRASE) === CR) {
    return decodeResponseHead(`${text.slice(0, PHRASE)} ${text.slice(PHRASE)}`, method, limits);
  }
  const line = statusLine(text);
  const scan = new FieldScan();
  scanFields(scan, text, line.end, limits.fieldsMax);
  if (scan.chunked && line.minor === 0) throw new Malformed("Transfer-Encoding in HTTP/1.0");
  let keepAlive = line.minor === 1 ? !scan.close : scan.keepAlive && !scan.close;
  if (answerHasBody(method, line.status)) {
    if (!scan.chunked && scan.contentLength < 0) keepAlive = false;
  } else {
    // A sender that declares chunks where none may be is likely to send them all the same.
    if (scan.chunked && method !== "HEAD") keepAlive = false;
    scan.chunked = false;
    // RFC 9110, 8.6: these have no length, not even of 0.
    if (scan.contentLength >= 0 && (line.status < 200 || line.status === 204)) {
      if (scan.contentLength > 0) throw new Malformed(`a ${line.status} answer declares a body`);
      cutFieldsNamed(scan, text, line.end, ["content-length"]);
    }
  }
  return new DecodedResponseHead(text, line, scan, keepAlive);
}

function statusLine(text: string): StatusLine {
  const minor = text.charCodeAt(7) - 48;
  if (!text.startsWith("HTTP/1.") || (minor !== 0 && minor !== 1) || text.charCodeAt(8) !== SP) {
    throw new Malformed("status line has no HTTP/1.0 or HTTP/1.1");
  }
  let status = 0;
  for (let i = 9; i < 12; i++) {
    const digit = text.charCodeAt(i) - 48;
    if (!(digit >= 0 && digit <= 9)) throw new Malformed("status is not three digits");
    status = status * 10 + digit;
  }
  if (status < 100) throw new Malformed("status is below 100");
  if (text.charCodeAt(PHRASE) !== SP) throw new Malformed("status is not three digits");
  let i = PHRASE + 1;
  while ((CLASS[text.charCodeAt(i)]! & VALUE) !== 0) i++;
  if (text.charCodeAt(i) !== 13 || text.charCodeAt(i + 1) !== 10) {
    throw new Malformed("status line has an invalid character");
  }
  return { minor, status, statusText: text.slice(PHRASE + 1, i), end: i + 2 };
}
