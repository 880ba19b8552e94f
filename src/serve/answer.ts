import {
  CHUNKED_FIELD,
  CLOSE_FIELD,
  CRLF,
  chunkPrefix,
  LAST_CHUNK,
  statusText,
  writeLatin1,
} from "../http/h1/encode.ts";
import type { RequestHead } from "../http/message.ts";

/** Where an answer goes. */
export interface Outlet {
  /** Undefined: go on at once. The promise: wait, the client is not keeping up. */
  write(bytes: Uint8Array): Promise<void> | undefined;
  /** Nobody is left to read. */
  readonly gone: boolean;
}

export interface AnswerContext {
  readonly request: RequestHead;
  /** The connection is kept if the answer's framing allows it. */
  readonly keepAlive: boolean;
  /** Unix milliseconds for `Date`; undefined = none is sent. */
  readonly now: number | undefined;
  /** Hears the reader of the body, so that a client that leaves can cancel it. */
  reading(reader: BodyReader, endless: boolean): void;
}

/** Fields that the framing below decides. */
const OURS: ReadonlySet<string> = new Set([
  ...["connection", "keep-alive", "transfer-encoding", "upgrade", "weft-reason"],
]);

/**
 * Sends a whole response; true: the connection may be used again. A body that is complete at once
 * goes out with its length, any other in chunks, or until close to an HTTP/1.0 client.
 * Rejects when the body fails underway: then the connection must be torn down.
 */
export async function sendAnswer(
  outlet: Outlet,
  response: Response,
  context: AnswerContext,
): Promise<boolean> {
  const { request } = context;
  const { status, body } = response;
  const bodiless = request.method === "HEAD" || status === 204 || status === 304;
  if (body === null || bodiless) {
    body?.cancel().catch(() => {});
    const length = bodiless ? "" : "content-length: 0\r\n";
    await outlet.write(writeLatin1(answerHead(response, context, length, bodiless)));
    return context.keepAlive;
  }
  const reader: BodyReader = body.getReader();
  context.reading(reader, isEventStream(response));
  return sendBody(outlet, response, reader, context);
}

async function sendBody(
  outlet: Outlet,
  response: Response,
  reader: BodyReader,
  context: AnswerContext,
): Promise<boolean> {
  const length = response.headers.get("content-length");
  const declared = length !== null;
  const start = declared ? undefined : await readWhole(reader);
  if (start?.whole !== undefined) {
    const field = `content-length: ${start.whole.length}\r\n`;
    const head = writeLatin1(answerHead(response, context, field, false));
    await outlet.write(Buffer.concat([head, start.whole]));
    return context.keepAlive;
  }
  const chunked = !declared && context.request.minor === 1;
  const reusable = context.keepAlive && (declared || chunked);
  const head = answerHead(
    response,
    { ...context, keepAlive: reusable },
    chunked ? CHUNKED_FIELD : "",
    declared,
  );
  await outlet.write(writeLatin1(head));
  const frame = chunked ? chunkOf : asIs;
  let left = declared ? Number(length) : Number.POSITIVE_INFINITY;
  if (start?.first !== undefined) await outlet.write(frame(start.first));
  let next = start?.pending ?? reader.read();
  for (;;) {
    const { done, value } = await next;
    if (outlet.gone) return false;
    if (done) break;
    left -= value.length;
    if (left < 0) throw new Error("body is longer than its Content-Length");
    if (value.length > 0) await outlet.write(frame(value));
    next = reader.read();
  }
  if (declared && left !== 0) throw new Error("body is shorter than its Content-Length");
  if (chunked) await outlet.write(writeLatin1(LAST_CHUNK));
  return reusable;
}

/** The part of a stream's reader that is used here. */
export interface BodyReader {
  read(): Promise<Read>;
  cancel(): Promise<void>;
}

type Read = { done: false; value: Uint8Array } | { done: true; value?: unknown };

interface BodyStart {
  /** The whole body, if it was there at once. */
  readonly whole: Uint8Array | undefined;
  readonly first: Uint8Array | undefined;
  readonly pending: Promise<Read> | undefined;
}

const NOTHING = new Uint8Array(0);

/** One turn of the event loop: what is not there by then is a stream. */
async function readWhole(reader: BodyReader): Promise<BodyStart> {
  const none = { whole: undefined, first: undefined, pending: undefined };
  const turn = new Promise<"turn">((resolve) => setImmediate(resolve, "turn"));
  const read = reader.read();
  const first = await Promise.race([read, turn]);
  if (first === "turn") return { ...none, pending: read };
  if (first.done) return { ...none, whole: NOTHING };
  const pending = reader.read();
  const second = await Promise.race([pending, turn]);
  if (second !== "turn" && second.done) return { ...none, whole: first.value };
  return { ...none, first: first.value, pending };
}

function chunkOf(bytes: Uint8Array): Uint8Array {
  return Buffer.concat([writeLatin1(chunkPrefix(bytes.length)), bytes, writeLatin1(CRLF)]);
}

function asIs(bytes: Uint8Array): Uint8Array {
  return bytes;
}

function isEventStream(response: Response): boolean {
  return response.headers.get("content-type")?.startsWith("text/event-stream") ?? false;
}

function answerHead(
  response: Response,
  context: AnswerContext,
  framing: string,
  keepLength: boolean,
): string {
  // `Response.error()` has the status 0.
  const status = response.status < 200 ? 500 : response.status;
  let head = `HTTP/1.1 ${status} ${statusText(status)}\r\n`;
  response.headers.forEach((value, name) => {
    if (OURS.has(name) || (name === "content-length" && !keepLength)) return;
    head += `${name}: ${value}\r\n`;
  });
  if (context.now !== undefined && !response.headers.has("date")) {
    head += `date: ${new Date(context.now).toUTCString()}\r\n`;
  }
  if (!context.keepAlive) head += CLOSE_FIELD;
  else if (context.request.minor === 0) head += "connection: keep-alive\r\n";
  return head + framing + CRLF;
}
