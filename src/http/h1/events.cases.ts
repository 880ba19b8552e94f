import type { MessageHead, RequestHead, ResponseHead } from "../message.ts";
import { RequestDecoder, ResponseDecoder } from "./decode.ts";
import { encodeRequestHead, encodeResponseHead } from "./encode.ts";

/** Everything a decoder said about some bytes, as text that does not depend on how they came. */
export interface Transcript {
  readonly heads: readonly string[];
  readonly bodies: readonly string[];
  readonly trailers: readonly string[];
  /** Status of the refusal, if any. */
  readonly refused: number | undefined;
}

/** Cuts `text` before each of the offsets. */
export function pieces(text: string, cuts: readonly number[]): Buffer[] {
  const bytes = Buffer.from(text, "latin1");
  const bounds = [0, ...cuts, bytes.length];
  const cut: Buffer[] = [];
  for (let i = 1; i < bounds.length; i++) {
    const piece = bytes.subarray(bounds[i - 1], bounds[i]);
    if (piece.length > 0) cut.push(Buffer.from(piece));
  }
  return cut;
}

export function everyByte(text: string): Buffer[] {
  return pieces(
    text,
    Array.from({ length: text.length }, (_, i) => i),
  );
}

interface Decoder<Head extends MessageHead> {
  push(chunk: Uint8Array): void;
  next(): string;
  readonly head: Head;
  readonly body: Uint8Array;
  readonly trailers: string;
  readonly error: { readonly status: number };
}

function run<Head extends MessageHead>(
  decoder: Decoder<Head>,
  chunks: readonly Uint8Array[],
  show: (head: Head) => string,
  ended: () => void,
): Transcript {
  const heads: string[] = [];
  const bodies: string[] = [];
  const trailers: string[] = [];
  let body = "";
  let steps = 0;
  for (const chunk of chunks) {
    decoder.push(chunk);
    for (;;) {
      const event = decoder.next();
      if (++steps > 100_000) throw new Error("the decoder does not come to an end");
      if (event === "more") break;
      if (event === "error") return { heads, bodies, trailers, refused: decoder.error.status };
      if (event === "head") heads.push(show(decoder.head));
      else if (event === "body") body += Buffer.from(decoder.body).toString("latin1");
      else {
        bodies.push(body);
        trailers.push(decoder.trailers);
        body = "";
        ended();
      }
    }
  }
  if (body !== "") bodies.push(`${body} (unfinished)`);
  return { heads, bodies, trailers, refused: undefined };
}

export function readRequests(chunks: readonly Uint8Array[]): Transcript {
  const show = (head: RequestHead) =>
    JSON.stringify([head.authority, head.keepAlive, encodeRequestHead(head, { add: "" })]);
  return run(new RequestDecoder(), chunks, show, () => {});
}

export function readResponses(chunks: readonly Uint8Array[], method = "GET"): Transcript {
  const decoder = new ResponseDecoder();
  decoder.expect(method);
  const show = (head: ResponseHead) =>
    JSON.stringify([head.status, head.keepAlive, encodeResponseHead(head, { add: "" })]);
  return run(decoder, chunks, show, () => decoder.expect(method));
}
