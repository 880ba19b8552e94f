/**
 * Request ids and W3C trace context (https://www.w3.org/TR/trace-context/). Made for every request
 * that has none, so digits are written into one buffer and cut out of it as text. What a caller
 * sent is passed on untouched: a proxy that records no span must not put one into the trace, or the
 * applications' spans would name a parent that nobody has seen.
 */

const LINES =
  "x-request-id: 00000000-0000-4000-8000-000000000000\r\n" +
  "traceparent: 00-00000000000000000000000000000000-0000000000000000-00\r\n";
const REQUEST_ID_AT = LINES.indexOf("00000000");
const TRACE_LINE_AT = LINES.indexOf("traceparent");
const TRACE_ID_AT = TRACE_LINE_AT + "traceparent: 00-".length;
const SPAN_ID_AT = TRACE_ID_AT + 33;
const REQUEST_ID_LENGTH = 36;

/** Node's own fast path, which its types leave out. */
type Latin1Buffer = Buffer & { latin1Slice(start: number, end: number): string };

const buffer = Buffer.from(LINES, "latin1") as Latin1Buffer;
const DIGITS = Buffer.from("0123456789abcdef", "latin1");

/** Random digits for the `count` places from `at`; `random` gives 24 bits at a time. */
function fill(at: number, count: number, random: () => number): void {
  let bits = 0;
  for (let i = 0; i < count; i++) {
    if (i % 6 === 0) bits = Math.floor(random() * 0x1000000);
    buffer[at + i] = DIGITS[bits & 15]!;
    bits >>>= 4;
  }
}

function fillRequestId(random: () => number): void {
  const at = REQUEST_ID_AT;
  fill(at, 8, random);
  fill(at + 9, 4, random);
  fill(at + 15, 3, random);
  buffer[at + 19] = DIGITS[8 + Math.floor(random() * 4)]!;
  fill(at + 20, 3, random);
  fill(at + 24, 12, random);
}

/** The specification makes all zeroes invalid: the last digit is never one. */
function fillNonZero(at: number, count: number, random: () => number): void {
  fill(at, count - 1, random);
  buffer[at + count - 1] = DIGITS[1 + Math.floor(random() * 15)]!;
}

function fillTrace(random: () => number): void {
  fillNonZero(TRACE_ID_AT, 32, random);
  fillNonZero(SPAN_ID_AT, 16, random);
}

/** Field lines for a request without id (a version 4 UUID) and trace context. */
export function newIdLines(random: () => number): string {
  fillRequestId(random);
  fillTrace(random);
  return buffer.latin1Slice(0, LINES.length);
}

export function newRequestIdLine(random: () => number): string {
  fillRequestId(random);
  return buffer.latin1Slice(0, TRACE_LINE_AT);
}

/** A new trace, not sampled: nobody asked for it to be recorded. */
export function newTraceparentLine(random: () => number): string {
  fillTrace(random);
  return buffer.latin1Slice(TRACE_LINE_AT, LINES.length);
}

/** What lines made here say; "" where they say nothing. */
export function readIdLines(lines: string): { requestId: string; traceparent: string } {
  return {
    requestId: /^x-request-id: (.*)/m.exec(lines)?.[1] ?? "",
    traceparent: /^traceparent: (.*)/m.exec(lines)?.[1] ?? "",
  };
}

export function newRequestId(random: () => number): string {
  fillRequestId(random);
  return buffer.latin1Slice(REQUEST_ID_AT, REQUEST_ID_AT + REQUEST_ID_LENGTH);
}
