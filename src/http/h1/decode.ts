/**
 * HTTP/1.1 decoders (RFC 9112) that do no I/O: bytes go in by `push`, events come out of `next`.
 * They are strict. Where two readers of the same bytes could disagree about where a message ends
 * or whom it is for, the message is refused and the connection with it.
 */
import type { RequestHead, ResponseHead } from "../message.ts";
import { CR, LF } from "./chars.ts";
import { ChunkedBody } from "./chunked.ts";
import { Intake, refuseStray } from "./intake.ts";
import { H1_LIMITS, type H1Limits } from "./limits.ts";
import { H1Error, Malformed, requestError, responseError } from "./malformed.ts";
import { decodeRequestHead } from "./request-head.ts";
import { answerHasBody, decodeResponseHead } from "./response-head.ts";

/**
 * "head", "body": see the decoder's fields. "end": the message is complete; bytes of the next one
 * stay buffered until `next` is called again. "error" is final.
 */
export type H1Event = "more" | "head" | "body" | "end" | "error";

type State = "idle" | "head" | "length" | "chunked" | "close" | "end" | "done" | "error";

const EMPTY = new Uint8Array(0);
const PROTOCOL = Buffer.from("HTTP/1.");

/** Reads the requests of one connection, one after the other. */
export class RequestDecoder {
  readonly #limits: H1Limits;
  readonly #intake = new Intake();
  readonly #chunks: ChunkedBody;
  #state: State = "head";
  #left = 0;
  #blankLine = false;
  #head: RequestHead | undefined;
  #body: Uint8Array = EMPTY;
  #error: H1Error | undefined;

  constructor(limits: H1Limits = H1_LIMITS) {
    this.#limits = limits;
    this.#chunks = new ChunkedBody(limits);
  }

  /** The request being read, or read last. Throws before the first "head". */
  get head(): RequestHead {
    if (this.#head === undefined) throw new Error("no request head was decoded yet");
    return this.#head;
  }

  /** A piece of the body; its bytes are never overwritten. */
  get body(): Uint8Array {
    return this.#body;
  }

  /** After "end": trailer lines that may be passed on, each with its CRLF; "" if none. */
  get trailers(): string {
    return this.#chunks.trailers;
  }

  /** Throws before "error". */
  get error(): H1Error {
    if (this.#error === undefined) throw new Error("the decoder has not failed");
    return this.#error;
  }

  /** Bytes received and not consumed. */
  get buffered(): number {
    return this.#intake.length;
  }

  /** No request is under way, not even a part of its head. */
  get idle(): boolean {
    return (this.#state === "head" || this.#state === "done") && this.#intake.length === 0;
  }

  /** The chunk must not be written to afterwards. */
  push(chunk: Uint8Array): void {
    this.#intake.push(chunk);
  }

  /** After "end" of an Upgrade or CONNECT: what the client sent early. */
  takeBuffered(): Uint8Array {
    return this.#intake.take(this.#intake.length);
  }

  next(): H1Event {
    try {
      return this.#step();
    } catch (cause) {
      this.#error = requestError(cause);
      this.#state = "error";
      return "error";
    }
  }

  #step(): H1Event {
    switch (this.#state) {
      case "head":
        return this.#readHead();
      case "length":
        return this.#readLength();
      case "chunked":
        return this.#readChunked();
      case "end":
        return this.#finish();
      case "done":
        if (this.#intake.length === 0) return "more";
        throw new Malformed("client went on after a request that closes the connection");
      default:
        return "error";
    }
  }

  /** RFC 9112, 9.6: nothing after a request that closes the connection is processed. */
  #finish(): "end" {
    this.#state = this.head.keepAlive ? "head" : "done";
    return "end";
  }

  #readHead(): H1Event {
    const intake = this.#intake;
    if (intake.length === 0) return "more";
    if (intake.bytes[intake.start]! <= CR && !this.#skipBlankLine()) return "more";
    const text = this.#takeHead(this.#limits.headBytesMax);
    if (text === undefined) return "more";
    this.#blankLine = false;
    // A client that repeats itself, as most do within a connection, is decoded once.
    const last = this.#head;
    const head =
      last !== undefined && last.text === text ? last : decodeStrictly(text, this.#limits);
    this.#head = head;
    if (head.chunked) {
      this.#chunks.reset();
      this.#state = "chunked";
    } else {
      if (this.#chunks.trailers !== "") this.#chunks.reset();
      this.#left = head.contentLength;
      this.#state = head.contentLength > 0 ? "length" : "end";
    }
    return "head";
  }

  /** RFC 9112, 3: a target that leaves no room for anything else is answered 414. */
  #takeHead(bytesMax: number): string | undefined {
    try {
      return this.#intake.takeHead(bytesMax);
    } catch (cause) {
      const { bytes, start } = this.#intake;
      const tooLong = cause instanceof Malformed && cause.status === 431;
      if (!tooLong || bytes.subarray(start, start + bytesMax).includes(LF)) throw cause;
      throw new Malformed(`request line is longer than ${bytesMax} bytes`, 414);
    }
  }

  /** RFC 9112, 2.2: one empty line before a request is ignored. False: its LF is yet to come. */
  #skipBlankLine(): boolean {
    const { bytes, start, length } = this.#intake;
    if (bytes[start] !== CR || this.#blankLine) throw new Malformed("request line has no method");
    if (length === 1) return false;
    if (bytes[start + 1] !== LF) throw new Malformed("head has a bare CR");
    this.#intake.start += 2;
    this.#blankLine = true;
    return this.#intake.length > 0 && this.#notBlank();
  }

  #notBlank(): boolean {
    if (this.#intake.bytes[this.#intake.start]! > CR) return true;
    throw new Malformed("request line has no method");
  }

  #readLength(): H1Event {
    if (this.#intake.length === 0) return "more";
    this.#body = this.#intake.take(this.#left);
    this.#left -= this.#body.length;
    if (this.#left === 0) this.#state = "end";
    return "body";
  }

  #readChunked(): H1Event {
    const event = this.#chunks.next(this.#intake);
    if (event === "body") this.#body = this.#chunks.body;
    return event === "end" ? this.#finish() : event;
  }
}

/** A stray byte is refused when it arrives; so that a head gets one answer however it is cut. */
function decodeStrictly(text: string, limits: H1Limits): RequestHead {
  try {
    return decodeRequestHead(text, limits);
  } catch (cause) {
    refuseStray(Buffer.from(text, "latin1"), 0, text.length);
    throw cause;
  }
}

/** Reads the responses of one connection; `expect` announces each. */
export class ResponseDecoder {
  readonly #limits: H1Limits;
  readonly #intake = new Intake();
  readonly #chunks: ChunkedBody;
  #state: State = "idle";
  #left = 0;
  #interim = 0;
  #method = "GET";
  #upgrade = false;
  #head: ResponseHead | undefined;
  #headHadBody = false;
  #body: Uint8Array = EMPTY;
  #error: H1Error | undefined;

  constructor(limits: H1Limits = H1_LIMITS) {
    this.#limits = limits;
    this.#chunks = new ChunkedBody(limits);
  }

  /** The response being read, or read last; status below 200: another head follows. */
  get head(): ResponseHead {
    if (this.#head === undefined) throw new Error("no response head was decoded yet");
    return this.#head;
  }

  /** A piece of the body; its bytes are never overwritten. */
  get body(): Uint8Array {
    return this.#body;
  }

  /** After "end": trailer lines that may be passed on, each with its CRLF; "" if none. */
  get trailers(): string {
    return this.#chunks.trailers;
  }

  /** Throws before "error". */
  get error(): H1Error {
    if (this.#error === undefined) throw new Error("the decoder has not failed");
    return this.#error;
  }

  /** Bytes received and not consumed; beyond "end" they were never asked for. */
  get buffered(): number {
    return this.#intake.length;
  }

  /** The body under way ends when the peer closes. */
  get untilClose(): boolean {
    return this.#state === "close";
  }

  /** Announces the answer to a request; `upgrade`: it asked for one, so that 101 is allowed. */
  expect(method: string, upgrade = false): void {
    this.#method = method;
    this.#upgrade = upgrade;
    this.#interim = 0;
    if (this.#state === "idle") this.#state = "head";
  }

  /** The chunk must not be written to afterwards. */
  push(chunk: Uint8Array): void {
    this.#intake.push(chunk);
  }

  /** After "end" of a 101 or an accepted CONNECT: what the server sent right behind it. */
  takeBuffered(): Uint8Array {
    return this.#intake.take(this.#intake.length);
  }

  next(): H1Event {
    try {
      return this.#step();
    } catch (cause) {
      return this.#fail(responseError(cause));
    }
  }

  /**
   * The peer closed its side; call it once `next` has returned "more". "end" completes a body that
   * lasts until then, "more" means that nothing was under way, else it is an error.
   */
  finish(): H1Event {
    if (this.#state === "close") {
      this.#state = "idle";
      return "end";
    }
    if (this.#state === "error") return "error";
    if (this.#state === "idle" && this.#intake.length === 0) return "more";
    return this.#fail(
      new H1Error("upstream_reset", 503, "upstream closed before its answer ended"),
    );
  }

  #fail(error: H1Error): "error" {
    this.#error = error;
    this.#state = "error";
    return "error";
  }

  #step(): H1Event {
    switch (this.#state) {
      case "idle":
        if (this.#intake.length === 0) return "more";
        throw new Malformed("upstream sent bytes that no request asked for");
      case "head":
        return this.#readHead();
      case "length":
        return this.#readLength();
      case "chunked":
        return this.#readChunked();
      case "close":
        if (this.#intake.length === 0) return "more";
        this.#body = this.#intake.take(this.#intake.length);
        return "body";
      case "end":
        this.#state = "idle";
        return "end";
      default:
        return "error";
    }
  }

  #readHead(): H1Event {
    if (this.#intake.length === 0) return "more";
    const text = this.#intake.takeHead(this.#limits.headBytesMax);
    if (text === undefined) {
      // Whatever speaks another protocol may never send the end of a head.
      if (!this.#intake.mayStartWith(PROTOCOL)) throw new Malformed("answer is not HTTP/1");
      return "more";
    }
    const last = this.#head;
    const hadBody = this.#headHadBody;
    const repeated = last !== undefined && hadBody && last.text === text && this.#method !== "HEAD";
    const head = repeated ? last : decodeResponseHead(text, this.#method, this.#limits);
    this.#head = head;
    this.#state = this.#bodyState(head);
    return "head";
  }

  #bodyState(head: ResponseHead): State {
    const { status, contentLength } = head;
    const hasBody = answerHasBody(this.#method, status);
    this.#headHadBody = hasBody;
    if (this.#chunks.trailers !== "") this.#chunks.reset();
    if (status < 200) return this.#interimState(status);
    if (!hasBody || contentLength === 0) return "end";
    if (head.chunked) {
      this.#chunks.reset();
      return "chunked";
    }
    this.#left = contentLength;
    return contentLength < 0 ? "close" : "length";
  }

  #interimState(status: number): State {
    if (status === 101) {
      if (this.#upgrade) return "end";
      throw new Malformed("upstream switched protocols unasked");
    }
    if (++this.#interim > this.#limits.interimMax) {
      throw new Malformed(`upstream sent more than ${this.#limits.interimMax} interim answers`);
    }
    return "head";
  }

  #readLength(): H1Event {
    if (this.#intake.length === 0) return "more";
    this.#body = this.#intake.take(this.#left);
    this.#left -= this.#body.length;
    if (this.#left === 0) this.#state = "end";
    return "body";
  }

  #readChunked(): H1Event {
    const event = this.#chunks.next(this.#intake);
    if (event === "body") this.#body = this.#chunks.body;
    else if (event === "end") this.#state = "idle";
    return event;
  }
}
