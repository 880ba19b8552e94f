import type { HeaderField, RequestHead } from "../message.ts";
import { readAuthority, sameAuthority } from "./authority.ts";
import { CLASS, SP, sameToken, TARGET, TOKEN } from "./chars.ts";
import { cutFieldsNamed, FieldScan, findField, listFields, scanFields } from "./fields.ts";
import { H1_LIMITS, type H1Limits, peerLimits } from "./limits.ts";
import { Malformed } from "./malformed.ts";

const SLASH = 47;
const ASTERISK = 42;
const NO_AUTHORITY = "";

class DecodedRequestHead implements RequestHead {
  readonly text: string;
  readonly fieldsStart: number;
  readonly minor: number;
  readonly method: string;
  readonly target: string;
  readonly authority: string;
  readonly contentLength: number;
  readonly chunked: boolean;
  readonly keepAlive: boolean;
  readonly upgrade: string | undefined;
  readonly cuts: readonly number[];
  readonly expectContinue: boolean;
  readonly requestId: string | undefined;
  readonly traceparent: string | undefined;

  constructor(text: string, line: RequestLine, scan: FieldScan) {
    this.text = text;
    this.fieldsStart = line.end;
    this.minor = line.minor;
    this.method = line.method;
    this.target = line.target;
    this.authority = authorityOf(text, line, scan);
    this.contentLength = scan.contentLength;
    this.chunked = scan.chunked;
    this.keepAlive = line.minor === 1 ? !scan.close : scan.keepAlive && !scan.close;
    this.upgrade = upgradeOf(text, line.minor, scan);
    this.cuts = scan.takeCuts();
    this.expectContinue = scan.expectContinue;
    this.requestId = slice(text, scan.requestIdStart, scan.requestIdEnd);
    this.traceparent = slice(text, scan.traceparentStart, scan.traceparentEnd);
  }

  field(name: string): string | undefined {
    return findField(this.text, this.fieldsStart, name);
  }

  fields(): HeaderField[] {
    return listFields(this.text, this.fieldsStart);
  }
}

/** The same request with another target of the same form, as if it had been sent so. */
export function retarget(head: RequestHead, target: string): RequestHead {
  const start = head.method.length + 1;
  const rest = head.text.slice(start + head.target.length);
  return decodeRequestHead(`${head.method} ${target}${rest}`, H1_LIMITS);
}

/** The same request with a Host field, which it lacks. */
export function withHost(head: RequestHead, authority: string): RequestHead {
  const { text, fieldsStart } = head;
  const fields = `host: ${authority}\r\n${text.slice(fieldsStart)}`;
  return decodeRequestHead(text.slice(0, fieldsStart) + fields, peerLimits(H1_LIMITS));
}

interface RequestLine {
  readonly method: string;
  readonly target: string;
  readonly targetStart: number;
  readonly minor: number;
  /** Offset of the first field. */
  readonly end: number;
}

/**
 * Decodes a whole request head (RFC 9112, sections 3 and 5), the empty line included.
 * @throws Malformed
 */
export function decodeRequestHead(text: string, limits: H1Limits): RequestHead {
  const line = requestLine(text, limits.methodBytesMax);
  const scan = new FieldScan();
  scanFields(scan, text, line.end, limits.fieldsMax);
  if (scan.chunked && line.minor === 0) throw new Malformed("Transfer-Encoding in HTTP/1.0");
  // RFC 9110, 10.1.1: there it is ignored.
  if (scan.expectContinue && line.minor === 0) cutFieldsNamed(scan, text, line.end, ["expect"]);
  const head = new DecodedRequestHead(text, line, scan);
  if (line.method === "CONNECT" && (scan.chunked || scan.contentLength > 0)) {
    throw new Malformed("CONNECT has a body");
  }
  return head;
}

function requestLine(text: string, methodBytesMax: number): RequestLine {
  let i = 0;
  while ((CLASS[text.charCodeAt(i)]! & TOKEN) !== 0) i++;
  if (i === 0 || text.charCodeAt(i) !== SP) throw new Malformed("request line has no method");
  if (i > methodBytesMax) throw new Malformed(`method is longer than ${methodBytesMax} bytes`, 501);
  const targetStart = i + 1;
  i = targetStart;
  while ((CLASS[text.charCodeAt(i)]! & TARGET) !== 0) i++;
  if (i === targetStart || text.charCodeAt(i) !== SP) {
    throw new Malformed("request target is empty or has an invalid character");
  }
  return {
    method: methodOf(text, targetStart - 1),
    target: text.slice(targetStart, i),
    targetStart,
    minor: minorVersion(text, i + 1),
    end: i + 11,
  };
}

/** The usual methods without a new string each. */
function methodOf(text: string, length: number): string {
  if (length === 3 && text.startsWith("GET")) return "GET";
  if (length === 4 && text.startsWith("POST")) return "POST";
  return text.slice(0, length);
}

/** Minor version of the `HTTP/1.x` that ends a line at `start`. */
function minorVersion(text: string, start: number): number {
  if (!text.startsWith("HTTP/", start)) throw new Malformed("request line has no HTTP version");
  if (text.charCodeAt(start + 8) !== 13 || text.charCodeAt(start + 9) !== 10) {
    throw new Malformed("HTTP version is invalid");
  }
  if (text.startsWith("1.", start + 5)) {
    const minor = text.charCodeAt(start + 7) - 48;
    if (minor === 0 || minor === 1) return minor;
  }
  if (/^\d\.\d$/.test(text.slice(start + 5, start + 8))) {
    throw new Malformed("only HTTP/1.0 and HTTP/1.1 are spoken here", 505);
  }
  throw new Malformed("HTTP version is invalid");
}

/** RFC 9112, 3.2 and 3.3: the target's authority, if it has one, and Host must say the same. */
function authorityOf(text: string, line: RequestLine, scan: FieldScan): string {
  const { target, method } = line;
  const first = target.charCodeAt(0);
  if (method === "CONNECT") return connectAuthority(text, line, scan);
  if (first === SLASH) return hostOf(text, line, scan);
  if (first === ASTERISK) {
    if (target.length === 1 && method === "OPTIONS") return hostOf(text, line, scan);
    throw new Malformed("request target is invalid");
  }
  return absoluteAuthority(text, line, scan);
}

function hostOf(text: string, line: RequestLine, scan: FieldScan): string {
  if (scan.hostStart >= 0) return readAuthority(text, scan.hostStart, scan.hostEnd);
  if (line.minor === 1) throw new Malformed("Host is missing");
  return NO_AUTHORITY;
}

function connectAuthority(text: string, line: RequestLine, scan: FieldScan): string {
  const { targetStart, target } = line;
  const authority = readAuthority(text, targetStart, targetStart + target.length);
  const port = /:(\d+)$/.exec(authority)?.[1];
  if (port === undefined) throw new Malformed("CONNECT target has no port");
  if (scan.hostStart < 0) return authority;
  const host = readAuthority(text, scan.hostStart, scan.hostEnd);
  if (sameAuthority(authority, host, Number(port))) return authority;
  throw new Malformed("CONNECT target and Host differ");
}

function absoluteAuthority(text: string, line: RequestLine, scan: FieldScan): string {
  const { targetStart, target } = line;
  const secure = sameToken(target, 0, "https://");
  if (!secure && !sameToken(target, 0, "http://")) throw new Malformed("request target is invalid");
  const start = secure ? 8 : 7;
  let end = start;
  while (end < target.length && target.charCodeAt(end) !== SLASH && target[end] !== "?") end++;
  const authority = readAuthority(text, targetStart + start, targetStart + end);
  if (scan.hostStart < 0 && line.minor === 0) return authority;
  if (sameAuthority(authority, hostOf(text, line, scan), secure ? 443 : 80)) return authority;
  throw new Malformed("request target and Host differ");
}

/**
 * h2c is never passed on: it would let a client speak past every rule of this proxy. Nor is an
 * upgrade to a choice of protocols over several fields, or one in HTTP/1.0 (RFC 9110, 7.8).
 */
export function upgradeOf(text: string, minor: number, scan: FieldScan): string | undefined {
  if (!scan.upgrade || scan.upgrades !== 1 || minor === 0) return undefined;
  const upgrade = text.slice(scan.upgradeStart, scan.upgradeEnd);
  return upgrade === "" || /h2c/i.test(upgrade) ? undefined : upgrade;
}

/** The text between two noted offsets; undefined where the field is absent. */
export function slice(text: string, start: number, end: number): string | undefined {
  return start < 0 ? undefined : text.slice(start, end);
}
