/**
 * Runs a Hono application behind our own listener and codec: one hardened parser for every port,
 * peer certificates visible to the application, certificates rotated like any other.
 */
import { RequestDecoder } from "../http/h1/decode.ts";
import { CLOSE_FIELD, CONTINUE, synthesize, writeLatin1 } from "../http/h1/encode.ts";
import { H1_LIMITS } from "../http/h1/limits.ts";
import type { RequestHead } from "../http/message.ts";
import type { Connection, ConnectionHandler, TlsPeer } from "../net/connection.ts";
import { type BodyReader, type Outlet, sendAnswer } from "./answer.ts";
import { SERVE_LIMITS, type ServeLimits } from "./limits.ts";
import { PROBLEM_TYPE, problemJson } from "./problem.ts";
import { RequestBody, takesBody, toRequest } from "./request.ts";

/** What an application knows of the connection; in Hono `c.env`. */
export interface ServeEnv {
  readonly peer: TlsPeer | undefined;
  readonly remoteAddress: string;
}

/** A Hono application, or anything that answers like one. */
export interface ServedApp {
  fetch(request: Request, env: ServeEnv): Response | Promise<Response>;
}

export interface ServeOptions {
  readonly limits?: Partial<ServeLimits>;
  /** Unix milliseconds, for `Date`. */
  readonly now?: () => number;
  /** While true every answer closes its connection. */
  readonly draining?: () => boolean;
  /** Hears what the application threw; the client sees only a 500. */
  readonly failed?: (cause: unknown, head: RequestHead) => void;
  /** While true nobody may keep half a head here. */
  readonly flooded?: () => boolean;
  /** Hears the code of whatever was refused or ended without asking the application. */
  readonly refused?: (code: string) => void;
}

/** Serves `app` on one connection; the result is that connection's handler. */
export function serveApp(c: Connection, app: ServedApp, o: ServeOptions = {}): ConnectionHandler {
  return new ServedConnection(c, app, o);
}

const FIX_SYNTAX = "send a well-formed HTTP/1.1 request";
const FIX_HEADERS = "send a shorter target, or fewer and shorter headers";
const FIX_METHOD = "use a method and a path that the server describes";

type Timing = "head" | "idle" | "body" | "write";

const WAIT_OF = {
  head: "headTimeoutMs",
  idle: "idleTimeoutMs",
  body: "tickMs",
  write: "idleTimeoutMs",
} as const;

/** One request and its answer. */
interface Exchange {
  readonly head: RequestHead;
  readonly abort: AbortController;
  /** Undefined: no body, or one that the application does not get to see. */
  readonly body: RequestBody | undefined;
  received: number;
  /** Bytes of the body at the last tick, and by how many seconds it is too slow. */
  seen: number;
  behind: number;
  /** The request has been read to its end. */
  read: boolean;
  /** Somebody has begun to answer. */
  answered: boolean;
  /** The client waits for `100 Continue`. */
  continues: boolean;
}

class ServedConnection implements ConnectionHandler, Outlet {
  readonly #c: Connection;
  readonly #app: ServedApp;
  readonly #options: ServeOptions;
  readonly #limits: ServeLimits;
  readonly #env: ServeEnv;
  readonly #decoder = new RequestDecoder(H1_LIMITS);
  #exchange: Exchange | undefined;
  #reader: BodyReader | undefined;
  #endless = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #timing: Timing | undefined;
  #resumeWrite: (() => void) | undefined;
  /** When the wait for a slow client began. */
  #unsent = 0;
  #peerEnded = false;
  #gone = false;

  constructor(c: Connection, app: ServedApp, o: ServeOptions) {
    this.#c = c;
    this.#app = app;
    this.#options = o;
    this.#limits = { ...SERVE_LIMITS, ...o.limits };
    this.#env = { peer: c.tls, remoteAddress: c.remoteAddress };
    this.#time("head");
  }

  get gone(): boolean {
    return this.#gone;
  }

  data(_c: Connection, chunk: Uint8Array): void {
    this.#decoder.push(chunk);
    this.#advance();
  }

  /** A client that has sent all it has to say may still wait for its answer. */
  end(): void {
    this.#peerEnded = true;
    const exchange = this.#exchange;
    if (exchange === undefined || !exchange.read) {
      this.#leave();
      this.#c.close();
      return;
    }
    exchange.abort.abort();
    if (this.#endless) this.#leave();
    if (this.#gone) this.#c.close();
  }

  drain(): void {
    this.#settleWrite();
  }

  close(): void {
    this.#leave();
  }

  /** Nobody reads any more: stops the timer, the application and the body under way. */
  #leave(): void {
    this.#gone = true;
    this.#time(undefined);
    const exchange = this.#exchange;
    if (exchange !== undefined) {
      exchange.abort.abort();
      exchange.body?.fail(new Error("the request ended before its body did"));
    }
    this.#reader?.cancel().catch(() => {});
    this.#settleWrite();
  }

  #advance(): void {
    this.#decode();
    this.#c.kept = this.#decoder.buffered;
  }

  /** Takes events from the decoder as far as the exchange under way allows. */
  #decode(): void {
    while (!this.#gone && this.#hungry()) {
      switch (this.#decoder.next()) {
        case "more":
          this.#wait();
          return;
        case "head":
          this.#open(this.#decoder.head);
          break;
        case "body":
          this.#feed(this.#decoder.body);
          break;
        case "end":
          this.#finishRead();
          break;
        case "error": {
          const { status, reason, message } = this.#decoder.error;
          const fix = reason === "headers_too_large" ? FIX_HEADERS : FIX_SYNTAX;
          this.#refuse(status, reason, message, fix);
          return;
        }
      }
    }
    if (this.#decoder.buffered > this.#limits.bufferedBytesMax) this.#c.pause();
  }

  /** A further event of the decoder can be used. */
  #hungry(): boolean {
    const exchange = this.#exchange;
    if (exchange === undefined) return true;
    if (exchange.read) return false;
    const { body } = exchange;
    return body === undefined || body.wanted || body.cancelled;
  }

  #wait(): void {
    if (this.#peerEnded) {
      this.#leave();
      this.#c.close();
      return;
    }
    const exchange = this.#exchange;
    const { buffered } = this.#decoder;
    if (exchange === undefined && buffered > 0 && this.#options.flooded?.() === true) {
      const why = "too much waits for clients that are slow";
      this.#refuse(503, "overflow", why, "send the whole head at once");
      return;
    }
    this.#c.resume();
    if (exchange !== undefined) {
      if (this.#timing !== "body") this.#time("body");
    } else if (buffered > 0 && this.#timing !== "head") this.#time("head");
  }

  #open(head: RequestHead): void {
    this.#time(undefined);
    if (head.method === "CONNECT" || head.method === "TRACE") {
      const why = "this server neither tunnels nor echoes";
      this.#refuse(501, "method_not_supported", why, FIX_METHOD);
      return;
    }
    if (head.contentLength > this.#limits.bodyBytesMax) {
      this.#exchange = exchangeOf(head, undefined);
      this.#tooLarge();
      return;
    }
    const whole = takesBody(head) ? this.#wholeBody(head) : undefined;
    const streams = takesBody(head) && whole === undefined && hasBody(head);
    const body = streams ? new RequestBody(() => this.#pulled()) : undefined;
    const exchange = exchangeOf(head, body);
    this.#exchange = exchange;
    if (whole !== undefined) exchange.read = true;
    const input = { secure: this.#c.tls !== undefined, body: body ?? whole };
    let request: Request;
    try {
      request = toRequest(head, { ...input, signal: exchange.abort.signal });
    } catch {
      this.#refuse(
        501,
        "method_not_supported",
        "no application can be asked this method or target",
        FIX_METHOD,
      );
      return;
    }
    this.#answer(exchange, request).catch(() => this.#c.destroy());
  }

  /** The body, if all of it has arrived together with the head. */
  #wholeBody(head: RequestHead): Uint8Array | undefined {
    if (head.contentLength <= 0 || this.#decoder.buffered < head.contentLength) return undefined;
    const parts: Uint8Array[] = [];
    while (this.#decoder.next() === "body") parts.push(this.#decoder.body);
    return Buffer.concat(parts);
  }

  #pulled(): void {
    const exchange = this.#exchange;
    if (exchange?.continues && !exchange.answered) {
      exchange.continues = false;
      this.#c.write(writeLatin1(CONTINUE));
    }
    this.#advance();
  }

  #feed(bytes: Uint8Array): void {
    const exchange = this.#exchange;
    if (exchange === undefined) return;
    exchange.received += bytes.length;
    if (exchange.received > this.#limits.bodyBytesMax) {
      this.#tooLarge();
      return;
    }
    exchange.body?.push(bytes);
  }

  #finishRead(): void {
    const exchange = this.#exchange;
    if (exchange === undefined) return;
    this.#time(undefined);
    exchange.read = true;
    exchange.body?.finish();
  }

  #tooLarge(): void {
    const detail = `request body is longer than ${this.#limits.bodyBytesMax} bytes`;
    this.#refuse(413, "body_too_large", detail, "send less at once");
  }

  /** Answers in the application's stead and closes: what follows on this connection is unknown. */
  #refuse(status: number, code: string, detail: string, fix: string): void {
    this.#options.refused?.(code);
    const exchange = this.#exchange;
    const begun = exchange?.answered ?? false;
    if (exchange !== undefined) exchange.answered = true;
    if (begun) {
      this.#c.destroy();
      return;
    }
    const headOnly = exchange?.head.method === "HEAD";
    const body = problemJson(status, code, detail, fix);
    this.#c.write(synthesize(status, PROBLEM_TYPE + CLOSE_FIELD, body, headOnly));
    this.#leave();
    this.#c.close();
  }

  async #answer(exchange: Exchange, request: Request): Promise<void> {
    let response: Response;
    try {
      response = await this.#app.fetch(request, this.#env);
    } catch (cause) {
      // After 413 and the like the application fails because we took its body away.
      if (!exchange.answered && !this.#gone) this.#options.failed?.(cause, exchange.head);
      const detail = "the request could not be handled";
      const body = problemJson(500, "internal", detail, "see the log of this process");
      const headers = { "content-type": "application/problem+json" };
      response = new Response(body, { status: 500, headers });
    }
    if (exchange.answered || this.#gone) {
      response.body?.cancel().catch(() => {});
      return;
    }
    exchange.answered = true;
    const wanted = exchange.head.keepAlive && exchange.read && !this.#last();
    const reusable = await sendAnswer(this, response, {
      request: exchange.head,
      keepAlive: wanted && this.#options.draining?.() !== true,
      now: this.#options.now?.(),
      reading: (reader, endless) => {
        this.#reader = reader;
        this.#endless = endless;
        if (this.#gone || (endless && this.#peerEnded)) this.#leave();
      },
    });
    this.#settle(reusable);
  }

  /** The client has said that it will send no more, and all it sent has been read. */
  #last(): boolean {
    return this.#peerEnded && this.#decoder.buffered === 0;
  }

  /** The answer is out: the next request, or the end of the connection. */
  #settle(reusable: boolean): void {
    this.#exchange = undefined;
    this.#reader = undefined;
    this.#endless = false;
    if (!reusable || this.#last() || this.#gone) {
      this.#leave();
      this.#c.close();
      return;
    }
    this.#time(this.#decoder.buffered > 0 ? "head" : "idle");
    this.#advance();
  }

  write(bytes: Uint8Array): Promise<void> | undefined {
    if (this.#gone || this.#c.write(bytes)) return undefined;
    this.#time("write");
    return new Promise((resolve) => {
      this.#resumeWrite = resolve;
    });
  }

  #settleWrite(): void {
    const resume = this.#resumeWrite;
    if (resume === undefined) return;
    this.#resumeWrite = undefined;
    this.#time(undefined);
    resume();
  }

  #time(timing: Timing | undefined): void {
    clearTimeout(this.#timer);
    this.#timing = timing;
    if (timing === undefined) return;
    if (timing === "write") this.#unsent = this.#c.queuedBytes;
    this.#timer = setTimeout(() => this.#expired(timing), this.#limits[WAIT_OF[timing]]);
  }

  #expired(timing: Timing): void {
    if (timing === "write") {
      // Slow is not still: only a client that took nothing is given up.
      if (this.#c.queuedBytes >= this.#unsent) {
        this.#options.refused?.("unread_answer");
        this.#c.destroy();
      } else this.#time("write");
    } else if (timing === "idle" || (timing === "head" && this.#decoder.buffered === 0)) {
      this.#options.refused?.("idle");
      this.#leave();
      this.#c.close();
    } else if (timing === "head" || this.#tooSlow()) {
      const why = "the request did not arrive in time";
      this.#refuse(408, "request_timeout", why, "send it without pauses");
    } else this.#time("body");
  }

  /** One more second of a body; those in which the application wanted none of it do not count. */
  #tooSlow(): boolean {
    const exchange = this.#exchange;
    if (exchange === undefined || !this.#hungry()) return false;
    const { bodyBytesPerSecondMin, bodyBehindSecondsMax } = this.#limits;
    const moved = (exchange.received - exchange.seen) / bodyBytesPerSecondMin;
    exchange.seen = exchange.received;
    exchange.behind = Math.max(0, exchange.behind + 1 - moved);
    return exchange.behind >= bodyBehindSecondsMax;
  }
}

function hasBody(head: RequestHead): boolean {
  return head.chunked || head.contentLength > 0;
}

function exchangeOf(head: RequestHead, body: RequestBody | undefined): Exchange {
  return {
    head,
    abort: new AbortController(),
    body,
    ...{ received: 0, seen: 0, behind: 0 },
    read: false,
    answered: false,
    continues: head.expectContinue && body !== undefined,
  };
}
