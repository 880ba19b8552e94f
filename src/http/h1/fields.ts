import type { HeaderField } from "../message.ts";
import { CLASS, COLON, CR, LF, sameToken, skipBlank, TOKEN, trimBlank, VALUE } from "./chars.ts";
import { Malformed } from "./malformed.ts";

/** Digits that stay below 2^53. */
const LENGTH_DIGITS_MAX = 15;

const NO_CUTS: readonly number[] = Object.freeze([]);

/** Each is looked for among all fields, of which there are no more. */
const NOMINATED_MAX = 100;
/** Names that `Connection` may not nominate: without them the message means something else. */
const ESSENTIAL = ["host", "content-length", "transfer-encoding"];

/** What one walk over a head's fields notes. Offsets point into the head's text; -1 = absent. */
export class FieldScan {
  count = 0;
  contentLength = -1;
  chunked = false;
  hostStart = -1;
  hostEnd = -1;
  upgrades = 0;
  upgradeStart = -1;
  upgradeEnd = -1;
  requestIdStart = -1;
  requestIdEnd = -1;
  traceparentStart = -1;
  traceparentEnd = -1;
  reasonStart = -1;
  reasonEnd = -1;
  keepAliveTimeout = -1;
  expectContinue = false;
  /** Tokens of `Connection`. */
  close = false;
  keepAlive = false;
  upgrade = false;
  nominated: string[] | undefined = undefined;
  cuts: number[] | undefined = undefined;
  /** The value last noted, blanks around it excluded. */
  valueStart = 0;
  valueEnd = 0;

  takeCuts(): readonly number[] {
    return this.cuts ?? NO_CUTS;
  }
}

/** Walks all fields of `text` from `start`; `text` ends with its only empty line. */
export function scanFields(scan: FieldScan, text: string, start: number, fieldsMax: number): void {
  const end = text.length - 2;
  let line = start;
  while (line < end) {
    const nameEnd = scanName(text, line);
    const lineEnd = scanValue(text, nameEnd + 1);
    scan.count++;
    note(scan, text, line, nameEnd, lineEnd);
    line = lineEnd + 2;
  }
  if (scan.count > fieldsMax) throw new Malformed(`head has more than ${fieldsMax} fields`, 431);
  if (scan.chunked && scan.contentLength >= 0) {
    throw new Malformed("Content-Length and Transfer-Encoding together");
  }
  if (scan.nominated !== undefined) cutFieldsNamed(scan, text, start, scan.nominated);
}

function scanName(text: string, start: number): number {
  let i = start;
  while ((CLASS[text.charCodeAt(i)]! & TOKEN) !== 0) i++;
  if (i === start) throw new Malformed("line starts with no field name, or is folded");
  if (text.charCodeAt(i) !== COLON) throw new Malformed("field name is not followed by a colon");
  return i;
}

/** Offset of the CR that ends the value. */
function scanValue(text: string, start: number): number {
  let i = start;
  while ((CLASS[text.charCodeAt(i)]! & VALUE) !== 0) i++;
  if (text.charCodeAt(i) !== CR || text.charCodeAt(i + 1) !== LF) {
    throw new Malformed("field value has a control byte");
  }
  return i;
}

/** Recognises the few names that matter by length, then by text. */
function note(
  scan: FieldScan,
  text: string,
  start: number,
  nameEnd: number,
  lineEnd: number,
): void {
  switch (nameEnd - start) {
    case 2:
      if (sameToken(text, start, "te")) cut(scan, start, lineEnd);
      return;
    case 4:
      if (sameToken(text, start, "host")) noteHost(scan, text, nameEnd, lineEnd);
      return;
    case 6:
      if (sameToken(text, start, "expect")) noteExpect(scan, text, nameEnd, lineEnd);
      return;
    case 7:
      if (sameToken(text, start, "upgrade")) noteUpgrade(scan, text, start, nameEnd, lineEnd);
      return;
    case 10:
      noteTen(scan, text, start, nameEnd, lineEnd);
      return;
    case 11:
      noteEleven(scan, text, start, nameEnd, lineEnd);
      return;
    case 12:
      if (sameToken(text, start, "x-request-id") && scan.requestIdStart < 0) {
        value(scan, text, nameEnd, lineEnd);
        scan.requestIdStart = scan.valueStart;
        scan.requestIdEnd = scan.valueEnd;
      }
      return;
    case 14:
      if (sameToken(text, start, "content-length")) noteLength(scan, text, nameEnd, lineEnd);
      else if (sameToken(text, start, "http2-settings")) cut(scan, start, lineEnd);
      else refuseAlias(text, start, nameEnd, "content-length");
      return;
    case 16:
      if (sameToken(text, start, "proxy-connection")) cut(scan, start, lineEnd);
      return;
    case 17:
      if (sameToken(text, start, "transfer-encoding")) {
        noteCoding(scan, text, start, nameEnd, lineEnd);
      } else refuseAlias(text, start, nameEnd, "transfer-encoding");
      return;
  }
}

/** Gateways to programs (CGI, WSGI) read `content_length` and `content.length` as the real one. */
function refuseAlias(text: string, start: number, nameEnd: number, name: string): void {
  const written = text.slice(start, nameEnd).toLowerCase();
  if (written.replace(/[_.]/g, "-") === name) throw new Malformed(`${written} stands for ${name}`);
}

function cut(scan: FieldScan, start: number, lineEnd: number): void {
  if (scan.cuts === undefined) scan.cuts = [start, lineEnd + 2];
  else scan.cuts.push(start, lineEnd + 2);
}

/** Sets `valueStart` and `valueEnd` to the value without the blanks around it. */
function value(scan: FieldScan, text: string, nameEnd: number, lineEnd: number): void {
  scan.valueStart = skipBlank(text, nameEnd + 1);
  scan.valueEnd = trimBlank(text, scan.valueStart, lineEnd);
}

function noteHost(scan: FieldScan, text: string, nameEnd: number, lineEnd: number): void {
  if (scan.hostStart >= 0) throw new Malformed("more than one Host field");
  value(scan, text, nameEnd, lineEnd);
  scan.hostStart = scan.valueStart;
  scan.hostEnd = scan.valueEnd;
}

function noteExpect(scan: FieldScan, text: string, nameEnd: number, lineEnd: number): void {
  if (scan.expectContinue) throw new Malformed("more than one Expect field", 417);
  value(scan, text, nameEnd, lineEnd);
  const { valueStart, valueEnd } = scan;
  if (valueEnd - valueStart !== 12 || !sameToken(text, valueStart, "100-continue")) {
    throw new Malformed("Expect asks for something other than 100-continue", 417);
  }
  scan.expectContinue = true;
}

function noteUpgrade(
  scan: FieldScan,
  text: string,
  start: number,
  nameEnd: number,
  lineEnd: number,
): void {
  cut(scan, start, lineEnd);
  scan.upgrades++;
  value(scan, text, nameEnd, lineEnd);
  scan.upgradeStart = scan.valueStart;
  scan.upgradeEnd = scan.valueEnd;
}

function noteTen(
  scan: FieldScan,
  text: string,
  start: number,
  nameEnd: number,
  lineEnd: number,
): void {
  if (sameToken(text, start, "connection")) {
    cut(scan, start, lineEnd);
    noteConnection(scan, text, nameEnd + 1, lineEnd);
  } else if (sameToken(text, start, "keep-alive")) {
    cut(scan, start, lineEnd);
    const timeout = /(?:^|[\t ,;])timeout=(\d{1,9})/i.exec(text.slice(nameEnd + 1, lineEnd));
    if (timeout?.[1] !== undefined) scan.keepAliveTimeout = Number(timeout[1]);
  }
}

function noteConnection(scan: FieldScan, text: string, start: number, end: number): void {
  let i = start;
  while (i < end) {
    const comma = text.indexOf(",", i);
    const stop = comma < 0 || comma > end ? end : comma;
    const first = Math.min(skipBlank(text, i), stop);
    const last = trimBlank(text, first, stop);
    if (last > first) noteOption(scan, text, first, last);
    i = stop + 1;
  }
}

function noteOption(scan: FieldScan, text: string, start: number, end: number): void {
  const length = end - start;
  if (length === 5 && sameToken(text, start, "close")) scan.close = true;
  else if (length === 10 && sameToken(text, start, "keep-alive")) scan.keepAlive = true;
  else if (length === 7 && sameToken(text, start, "upgrade")) scan.upgrade = true;
  else {
    const name = text.slice(start, end).toLowerCase();
    if (ESSENTIAL.includes(name)) throw new Malformed(`Connection nominates ${name}`);
    scan.nominated ??= [];
    if (scan.nominated.length >= NOMINATED_MAX) throw new Malformed("too many Connection options");
    scan.nominated.push(name);
  }
}

function noteEleven(
  scan: FieldScan,
  text: string,
  start: number,
  nameEnd: number,
  lineEnd: number,
): void {
  if (sameToken(text, start, "weft-reason")) {
    cut(scan, start, lineEnd);
    value(scan, text, nameEnd, lineEnd);
    scan.reasonStart = scan.valueStart;
    scan.reasonEnd = scan.valueEnd;
  } else if (scan.traceparentStart < 0 && sameToken(text, start, "traceparent")) {
    value(scan, text, nameEnd, lineEnd);
    scan.traceparentStart = scan.valueStart;
    scan.traceparentEnd = scan.valueEnd;
  }
}

/** Only digits, only once: a list or a repeated equal length is already an ambiguity. */
function noteLength(scan: FieldScan, text: string, nameEnd: number, lineEnd: number): void {
  if (scan.contentLength >= 0) throw new Malformed("more than one Content-Length field");
  value(scan, text, nameEnd, lineEnd);
  const digits = scan.valueEnd - scan.valueStart;
  if (digits === 0 || digits > LENGTH_DIGITS_MAX) throw new Malformed("Content-Length is invalid");
  let length = 0;
  for (let i = scan.valueStart; i < scan.valueEnd; i++) {
    const digit = text.charCodeAt(i) - 48;
    if (digit < 0 || digit > 9) throw new Malformed("Content-Length is not a number");
    length = length * 10 + digit;
  }
  scan.contentLength = length;
}

function noteCoding(
  scan: FieldScan,
  text: string,
  start: number,
  nameEnd: number,
  lineEnd: number,
): void {
  cut(scan, start, lineEnd);
  if (scan.chunked) throw new Malformed("more than one Transfer-Encoding field");
  value(scan, text, nameEnd, lineEnd);
  const { valueStart, valueEnd } = scan;
  if (valueEnd - valueStart === 7 && sameToken(text, valueStart, "chunked")) {
    scan.chunked = true;
    return;
  }
  const coding = text.slice(valueStart, valueEnd).toLowerCase();
  const known = ["gzip", "x-gzip", "deflate", "compress", "x-compress", "identity"];
  throw new Malformed("Transfer-Encoding is not chunked", known.includes(coding) ? 501 : 400);
}

/** Cuts fields beyond the usual ones: rare. `names` are in lower case. */
export function cutFieldsNamed(
  scan: FieldScan,
  text: string,
  start: number,
  names: readonly string[],
): void {
  const known = new Set(scan.cuts?.filter((_, index) => index % 2 === 0));
  const cuts: number[] = [];
  eachField(text, start, (line, nameEnd, lineEnd) => {
    const name = text.slice(line, nameEnd).toLowerCase();
    if (known.has(line) || names.includes(name)) cuts.push(line, lineEnd + 2);
  });
  scan.cuts = cuts;
  if (names.includes("x-request-id")) scan.requestIdStart = -1;
  if (names.includes("traceparent")) scan.traceparentStart = -1;
  if (names.includes("expect")) scan.expectContinue = false;
}

/** Visits the fields of an already valid head. */
export function eachField(
  text: string,
  start: number,
  visit: (line: number, nameEnd: number, lineEnd: number) => void,
): void {
  const end = text.length - 2;
  let line = start;
  while (line < end) {
    const nameEnd = text.indexOf(":", line);
    const lineEnd = text.indexOf("\r\n", nameEnd);
    visit(line, nameEnd, lineEnd);
    line = lineEnd + 2;
  }
}

/** Value of the first field called `name` (lower case) of an already valid head. */
export function findField(text: string, start: number, name: string): string | undefined {
  const end = text.length - 2;
  let line = start;
  while (line < end) {
    const lineEnd = text.indexOf("\r\n", line);
    if (text.charCodeAt(line + name.length) === COLON && sameName(text, line, name)) {
      return fieldValue(text, line + name.length, lineEnd);
    }
    line = lineEnd + 2;
  }
  return undefined;
}

/** Like `sameToken`, for a name of any token characters. */
function sameName(text: string, start: number, name: string): boolean {
  for (let i = 0; i < name.length; i++) {
    const code = text.charCodeAt(start + i);
    const lower = code >= 65 && code <= 90 ? code | 0x20 : code;
    if (lower !== name.charCodeAt(i)) return false;
  }
  return true;
}

export function listFields(text: string, start: number): HeaderField[] {
  const fields: HeaderField[] = [];
  eachField(text, start, (line, nameEnd, lineEnd) => {
    fields.push({ name: text.slice(line, nameEnd), value: fieldValue(text, nameEnd, lineEnd) });
  });
  return fields;
}

function fieldValue(text: string, nameEnd: number, lineEnd: number): string {
  const first = skipBlank(text, nameEnd + 1);
  return text.slice(first, trimBlank(text, first, lineEnd));
}
