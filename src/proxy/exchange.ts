/**
 * One caller's HTTP/1.1 connection, and the request on it that is being served. The object lives
 * as long as the connection and is used again for every request, so that the steady path creates
 * nothing but the head it sends on.
 *
 *   idle ──head──▶ deciding ──forward──▶ queued ──turn──▶ connecting ──▶ active ──end──▶ idle
 *                     │                    └──────────────▲ │  ▲            │
 *                     └──answer──▶ idle                     │  └──retrying◀─┘ (nothing sent back)
 *                                                           └──▶ retrying
 *   active ──101──▶ tunnel; any ──close──▶ closed
 */
import { REASONS, type Reason } from "../error.ts";
import { RequestDecoder } from "../http/h1/decode.ts";
import { CLOSE_FIELD, synthesize } from "../http/h1/encode.ts";
import type { H1Error } from "../http/h1/malformed.ts";
import type { RequestHead, ResponseHead } from "../http/message.ts";
import type { Connection, ConnectionHandler } from "../net/connection.ts";
import type { CompiledEdit } from "../route/headers.ts";
import type { RequestMeter } from "../telemetry/golden.ts";
import type { Waiter } from "../upstream/destination.ts";
import type { ConnectUser, Endpoint } from "../upstream/endpoint.ts";
import type { ClientUser, HttpClient } from "../upstream/http-client.ts";
import { Allowance } from "./allowance.ts";
import { type Forward, logRequest } from "./forward.ts";
import { requestHeadFor, responseHeadFor, switchingHeadFor } from "./heads.ts";
import { MessageWriter } from "./message-writer.ts";
import { type Relay, relay } from "./relay.ts";
import { type FailureKind, ReplayBuffer, retryDelayMs } from "./retry.ts";
import type { Side } from "./side.ts";
import type { Ticking } from "./state.ts";

type Phase =
  | "idle"
  | "deciding"
  | "queued"
  | "connecting"
  | "active"
  | "retrying"
  | "tunnel"
  | "closed";

/**
 * Received and not yet sent on: beyond this the caller is paused. Also what it may leave unread of
 * its answers before its next request is looked at.
 */
const HOLD_BYTES_MAX = 64 * 1024;
/** From the first byte of a head to its last, seconds. */
const HEAD_SECONDS = 10;
/** How long a peer may owe bytes, or leave bytes unread, without moving any, seconds. */
const STALLED_SECONDS = 300;
/** Status in metrics and logs of a request whose caller went away (nginx's). */
const CALLER_GONE = 499;

export class Exchange implements ConnectionHandler, ClientUser, ConnectUser, Waiter, Ticking {
  readonly downstream: Connection;
  readonly decoder = new RequestDecoder();
  readonly #side: Side<Exchange>;
  #phase: Phase = "idle";
  #pumping = false;
  #ticks = 0;
  /** How far the request had come at the last tick. */
  #moved = 0;

  /** The request: valid outside of "idle". */
  #head: RequestHead | undefined;
  #startedAt = 0;
  #to: Forward | undefined;
  #attempts = 0;
  #requestEnded = false;
  #closeAfter = false;
  readonly #up = new MessageWriter();
  #received = 0;
  readonly #replay = new ReplayBuffer();

  /** The attempt under way. */
  #ticket = 0;
  #endpoint: Endpoint | undefined;
  /** Endpoints that failed this request. */
  #tried: Endpoint[] | undefined;
  #client: HttpClient | undefined;
  #clientEnded = false;
  readonly #allowance = new Allowance();
  #upBlocked = false;

  /** The answer. */
  #answerHead: ResponseHead | undefined;
  readonly #down = new MessageWriter();
  #downBlocked = false;
  #sent = 0;

  #requestTimer: ReturnType<typeof setTimeout> | undefined;
  #tryTimer: ReturnType<typeof setTimeout> | undefined;
  #retryTimer: ReturnType<typeof setTimeout> | undefined;
  #relay: Relay | undefined;

  constructor(downstream: Connection, side: Side<Exchange>) {
    this.downstream = downstream;
    this.#side = side;
    side.state.open.add(this);
  }

  get direction(): "inbound" | "outbound" {
    return this.#side.direction;
  }

  get workload(): string {
    return this.#side.workload;
  }

  get head(): RequestHead {
    return this.#head!;
  }

  /** Deciding or waiting: what `begin` may come back to. */
  get deciding(): boolean {
    return this.#phase === "deciding";
  }

  get idle(): boolean {
    return this.#phase === "idle" || this.#phase === "closed";
  }

  // ---- the caller's side -------------------------------------------------------------------

  data(_c: Connection, chunk: Uint8Array): void {
    // Only the first byte of a head starts its clock: dripping more does not buy time.
    if (this.decoder.buffered === 0) this.#ticks = 0;
    this.decoder.push(chunk);
    this.#pump();
  }

  /** A caller that stops sending while it is owed an answer has gone away, as for most servers. */
  end(c: Connection): void {
    if (this.#phase === "idle" && this.decoder.idle) c.close();
    else c.destroy();
  }

  drain(): void {
    if (!this.#downBlocked) {
      if (this.#phase === "idle") this.#pump();
      return;
    }
    this.#downBlocked = false;
    const client = this.#client;
    if (client === undefined) return;
    this.#pumpAnswer(client);
    if (client !== this.#client || this.#downBlocked) return;
    if (this.#clientEnded) this.onClientEnd(client);
    else client.connection.resume();
  }

  close(): void {
    const under = this.#phase !== "idle" && this.#phase !== "closed";
    const tunnel = this.#phase === "tunnel";
    if (under && !tunnel) {
      this.#dropAttempt();
      this.#allowance.release(this);
      this.#record(CALLER_GONE, "");
    }
    this.#phase = "closed";
    this.#clearTimers();
    this.#side.state.open.delete(this);
  }

  tick(): void {
    if (this.#phase !== "idle" || this.downstream.queuedBytes > 0) {
      this.#tickUnderWay();
      return;
    }
    this.#ticks++;
    if (this.decoder.idle) {
      if (this.#ticks > this.#side.idleSeconds) this.downstream.close();
    } else if (this.#ticks > HEAD_SECONDS) {
      this.#begin(undefined);
      this.#closeAfter = true;
      this.answer("bad_request", "the request's head did not arrive in time", 408);
    }
  }

  /**
   * Ends what stands still although a peer owes bytes or leaves them unread. Waiting for an
   * answer is none of that: how long it may take is the policy's business.
   */
  #tickUnderWay(): void {
    if (this.#phase === "tunnel") return;
    const down = this.downstream.queuedBytes;
    const up = this.#client?.connection.queuedBytes ?? 0;
    const awaitsBody = this.#phase === "active" && !this.#requestEnded;
    // Halves, so that bytes which only went into a queue have moved, too.
    const moved = this.#received + this.#sent - (down + up) / 2;
    if (moved !== this.#moved || !(awaitsBody || down > 0 || up > 0)) {
      this.#moved = moved;
      this.#ticks = 0;
      return;
    }
    if (++this.#ticks < STALLED_SECONDS) return;
    if (this.idle) {
      this.downstream.destroy();
      return;
    }
    this.#dropAttempt();
    this.#closeAfter = true;
    const message = `nothing moved for ${STALLED_SECONDS} s`;
    if (this.#answerHead !== undefined) this.#abort("timeout", this.#answerHead.status);
    else if (up > 0) this.answer("timeout", message);
    else this.answer("bad_request", message, 408);
  }

  shut(force: boolean): void {
    if (force) {
      this.#relay?.destroy();
      this.downstream.destroy();
    } else if (this.#phase === "idle") this.downstream.close();
    else this.#closeAfter = true;
  }

  /** Reads requests and their bodies as far as possible now. */
  #pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    try {
      while (this.#step());
    } finally {
      this.#pumping = false;
    }
    this.#regulate();
  }

  /** Reads from the caller only as fast as its bytes are used. */
  #regulate(): void {
    const phase = this.#phase;
    if (phase === "closed" || phase === "tunnel") return;
    if (this.#upBlocked || this.decoder.buffered > HOLD_BYTES_MAX) this.downstream.pause();
    else if (phase !== "deciding") this.downstream.resume();
  }

  /** False: nothing more to read for now. */
  #step(): boolean {
    if (this.#phase === "active") return this.#sendBody();
    if (this.#phase !== "idle") return false;
    // Whoever does not read its answers gets no more of them.
    if (this.downstream.queuedBytes > HOLD_BYTES_MAX) return false;
    const event = this.decoder.next();
    if (event === "more") return false;
    if (event === "head") {
      this.#begin(this.decoder.head);
      // The codec refuses a CONNECT with a body: it ends here, and what follows is early data.
      if (this.head.method === "CONNECT") this.#requestEnded = this.decoder.next() === "end";
      this.#side.begin(this);
      return true;
    }
    this.#begin(undefined);
    this.#closeAfter = true;
    const { error } = this.decoder;
    this.answer(error.reason, error.message, error.status);
    return false;
  }

  #begin(head: RequestHead | undefined): void {
    this.#phase = "deciding";
    this.#head = head;
    this.#startedAt = this.#side.state.now();
    this.#attempts = 0;
    this.#requestEnded = false;
    this.#closeAfter = head === undefined || !head.keepAlive || this.#side.state.draining;
    this.#received = 0;
    this.#sent = 0;
    this.#answerHead = undefined;
    this.#down.clear();
    this.#replay.clear();
    this.#to = undefined;
    this.#tried = undefined;
    this.#endpoint = undefined;
  }

  // ---- towards the endpoint ------------------------------------------------------------------

  /** Sends the request on. */
  forward(to: Forward): void {
    this.#to = to;
    const timeoutMs = to.rule?.requestTimeoutMs ?? 0;
    if (timeoutMs > 0) {
      this.#requestTimer = setTimeout(() => this.#timedOut("request", timeoutMs), timeoutMs);
    }
    this.#up.begin(requestHeadFor(this.head, to, this.#side.state.random), this.head.chunked);
    if (to.destination === undefined) {
      this.#attempt();
      return;
    }
    const entry = this.#allowance.enter(to.destination, this);
    if (entry === "full") {
      this.answer("overflow", "too many requests are waiting for this service");
      return;
    }
    if (entry === "wait") {
      this.#phase = "queued";
      return;
    }
    this.#attempt();
  }

  onTurn(): void {
    this.#allowance.arrived();
    this.#attempt();
    this.#pump();
  }

  #attempt(): void {
    const to = this.#to!;
    const { now, random } = this.#side.state;
    const at = now();
    const endpoint = to.endpoint ?? to.destination?.pick(at, random, this.#tried);
    if (endpoint === undefined) {
      this.answer("no_endpoint", "the service has no instance");
      return;
    }
    this.#attempts++;
    this.#endpoint = endpoint;
    endpoint.active++;
    const tryMs = to.backend?.perTryTimeoutMs ?? 0;
    if (tryMs > 0) this.#tryTimer = setTimeout(() => this.#timedOut("attempt", tryMs), tryMs);
    const client = endpoint.take(at);
    if (client !== undefined) {
      this.#use(client);
      return;
    }
    this.#phase = "connecting";
    endpoint.connect(to.connectTimeoutMs, this, ++this.#ticket);
  }

  onConnected(client: HttpClient, ticket: number): void {
    if (ticket !== this.#ticket || this.#phase !== "connecting") {
      // Given up meanwhile: the next request finds it open.
      const idleMs = this.#to?.idleTimeoutMs ?? 0;
      client.endpoint.put(client, this.#side.state.now(), idleMs);
      return;
    }
    this.#use(client);
    this.#pump();
  }

  onConnectFailed(error: Error, ticket: number): void {
    if (ticket !== this.#ticket || this.#phase !== "connecting") return;
    const reason = this.#side.direction === "inbound" ? "app_unreachable" : "connect_failed";
    this.#attemptFailed(
      reason,
      "connect",
      `cannot reach ${this.#endpoint?.name}: ${error.message}`,
    );
    this.#pump();
  }

  #use(client: HttpClient): void {
    this.#phase = "active";
    this.#client = client;
    this.#clientEnded = false;
    this.#upBlocked = false;
    client.user = this;
    client.decoder.expect(this.head.method, this.head.upgrade !== undefined);
    if (this.#replay.length > 0 || this.#requestEnded) this.#sendAgain();
  }

  /** Repeats what an earlier attempt has sent already. */
  #sendAgain(): void {
    for (const chunk of this.#replay.chunks()) this.#sendUp(chunk, false);
    if (this.#requestEnded) this.#sendUp(undefined, true);
  }

  /** Moves body bytes to the endpoint. False: no more for now. */
  #sendBody(): boolean {
    if (this.#requestEnded) return false;
    let body: Uint8Array | undefined;
    while (!this.#upBlocked && this.#phase === "active") {
      const event = this.decoder.next();
      if (event === "body") {
        if (body !== undefined) this.#sendUp(body, false);
        body = this.decoder.body;
        this.#received += body.length;
        this.#replay.add(body);
      } else if (event === "end") {
        this.#requestEnded = true;
        this.#sendUp(body, true);
        return false;
      } else if (event === "more") break;
      else {
        this.#badBody(this.decoder.error);
        return false;
      }
    }
    if (body !== undefined || this.#up.pending) this.#sendUp(body, false);
    return false;
  }

  #badBody(error: H1Error): void {
    this.#dropAttempt();
    this.#closeAfter = true;
    if (this.#answerHead === undefined) this.answer(error.reason, error.message, error.status);
    else this.#abort(error.reason, error.status);
  }

  #sendUp(body: Uint8Array | undefined, last: boolean): void {
    if (this.#up.send(this.#client!.connection, body, last, this.decoder.trailers)) return;
    this.#upBlocked = true;
    this.downstream.pause();
  }

  onClientDrain(client: HttpClient): void {
    if (client !== this.#client || !this.#upBlocked) return;
    this.#upBlocked = false;
    this.#pump();
  }

  // ---- the answer ------------------------------------------------------------------------------

  onAnswer(client: HttpClient): void {
    if (client === this.#client && !this.#downBlocked) this.#pumpAnswer(client);
  }

  #pumpAnswer(client: HttpClient): void {
    const { decoder } = client;
    let body: Uint8Array | undefined;
    while (!this.#downBlocked) {
      const event = decoder.next();
      if (event === "body") {
        if (body !== undefined) this.#sendDown(body, false, "");
        body = decoder.body;
        this.#sent += body.length;
      } else if (event === "head") {
        if (!this.#onAnswerHead(client, decoder.head)) return;
      } else if (event === "end") {
        this.#sendDown(body, true, decoder.trailers);
        this.#answerEnded(client);
        return;
      } else if (event === "more") break;
      else {
        this.#attemptFailed("upstream_invalid", "invalid", decoder.error.message);
        return;
      }
    }
    if (body !== undefined || this.#down.pending) this.#sendDown(body, false, "");
  }

  /** False: this answer is not passed on. */
  #onAnswerHead(client: HttpClient, head: ResponseHead): boolean {
    const { downstream } = this;
    if (head.status < 200 && head.status !== 101) {
      if (this.head.minor === 1)
        downstream.writeHead(responseHeadFor(head, undefined, INTERIM), undefined);
      return true;
    }
    if (this.#retriedInstead(client, head)) return false;
    this.#answerHead = head;
    this.#replay.clear();
    if (this.#tryTimer !== undefined) clearTimeout(this.#tryTimer);
    if (head.status === 101) {
      if (!this.#requestEnded) {
        // RFC 9110, 7.8: the request is read to its end first; what is left of it is no tunnel.
        this.#answerHead = undefined;
        this.#attemptFailed("upstream_invalid", "invalid", "upstream switched protocols early");
        return false;
      }
      this.#tunnel(client, head);
      return false;
    }
    if (this.#side.state.draining || this.head.upgrade !== undefined) this.#closeAfter = true;
    const endless = client.decoder.untilClose || head.chunked;
    const chunked = endless && this.head.minor === 1;
    if (endless && !chunked) this.#closeAfter = true;
    const framing = { chunked, close: this.#closeAfter, minor: this.head.minor };
    const edit = this.#to?.backend?.responseHeaders;
    this.#down.begin(responseHeadFor(head, edit, framing), chunked);
    return true;
  }

  /** An answer that says that nothing was done, or one the policy retries. */
  #retriedInstead(client: HttpClient, head: ResponseHead): boolean {
    const said = client.endpoint.mesh === undefined ? undefined : head.reason;
    const codes = this.#to?.destination?.target.policy.retries.codes;
    let kind: FailureKind;
    if (said === "app_unreachable" || said === "draining") kind = said;
    else if (codes !== undefined && codes.length > 0 && codes.includes(head.status)) kind = "code";
    else return false;
    if (said === "app_unreachable") this.#endpoint?.avoid();
    if (!this.#takeRetry(kind)) return false;
    this.#dropAttempt();
    this.#retry();
    return true;
  }

  #sendDown(body: Uint8Array | undefined, last: boolean, trailers: string): void {
    if (this.#down.send(this.downstream, body, last, trailers) || last) return;
    this.#downBlocked = true;
    this.#client?.connection.pause();
  }

  #answerEnded(client: HttpClient): void {
    const head = this.#answerHead!;
    const reusable =
      head.keepAlive &&
      this.#requestEnded &&
      this.head.upgrade === undefined &&
      client.decoder.buffered === 0 &&
      client.connection.queuedBytes === 0;
    if (!this.#requestEnded) this.#closeAfter = true;
    this.#client = undefined;
    client.user = undefined;
    if (reusable) {
      // It was paused if this caller read slowly; the next one must hear it.
      client.connection.resume();
      const offered = head.keepAliveTimeout;
      const limit = this.#to!.idleTimeoutMs;
      // The server counts from its side: leave it a second of doubt.
      const idleMs = offered > 0 ? Math.min(limit, Math.max(0, offered * 1000 - 1000)) : limit;
      client.endpoint.put(client, this.#side.state.now(), idleMs);
    } else if (this.#requestEnded) client.connection.close();
    else client.connection.destroy();
    this.#leave();
    const said = client.endpoint.mesh === undefined ? "" : (head.reason ?? "");
    this.#finish(head.status, said);
  }

  onClientEnd(client: HttpClient): void {
    if (client !== this.#client) return;
    if (this.#downBlocked) {
      this.#clientEnded = true;
      return;
    }
    this.#clientGone(client, undefined);
  }

  onClientClosed(client: HttpClient, error: Error | undefined): void {
    if (client === this.#client) this.#clientGone(client, error);
  }

  #clientGone(client: HttpClient, error: Error | undefined): void {
    if (error === undefined && client.decoder.untilClose) {
      client.decoder.finish();
      this.#sendDown(undefined, true, "");
      this.#answerEnded(client);
      return;
    }
    const name = this.#endpoint?.name;
    if (client.answered) {
      this.#attemptFailed("upstream_reset", "reset", `${name} closed before its answer ended`);
    } else if (client.served > 0) {
      this.#attemptFailed("upstream_reset", "stale", `${name} closed a kept connection`);
    } else if (error === undefined && client.endpoint.mesh !== undefined) {
      // A peer that refuses our certificate says so only by closing.
      this.#attemptFailed("connect_failed", "refused", `${name} closed before any answer`);
    } else {
      this.#attemptFailed("upstream_reset", "reset", `${name} closed before any answer`);
    }
  }

  // ---- failures --------------------------------------------------------------------------------

  #timedOut(what: "request" | "attempt", timeoutMs: number): void {
    if (this.#phase === "idle" || this.#phase === "closed" || this.#phase === "tunnel") return;
    const message = `no answer within ${timeoutMs} ms`;
    if (what === "attempt") {
      if (this.#answerHead === undefined) this.#attemptFailed("timeout", "timeout", message);
    } else {
      this.#dropAttempt();
      if (this.#answerHead === undefined) this.answer("timeout", message);
      else this.#abort("timeout", REASONS.timeout.status);
    }
    this.#pump();
  }

  #attemptFailed(reason: Reason, kind: FailureKind, message: string): void {
    const retry = this.#answerHead === undefined && this.#takeRetry(kind);
    this.#dropAttempt();
    if (retry) this.#retry();
    else if (this.#answerHead === undefined) this.answer(reason, message);
    else this.#abort(reason, this.#answerHead.status);
  }

  #takeRetry(kind: FailureKind): boolean {
    if (!this.#replay.complete) return false;
    const count = { golden: this.#side.state.golden, workload: this.#side.workload };
    return this.#allowance.retry(kind, this.#attempts, this.head.method, count);
  }

  #retry(): void {
    this.#phase = "retrying";
    const text = requestHeadFor(this.head, this.#to!, this.#side.state.random);
    this.#up.begin(text, this.head.chunked);
    if (this.#endpoint !== undefined) {
      this.#tried ??= [];
      this.#tried.push(this.#endpoint);
    }
    const policy = this.#to?.destination?.target.policy;
    const delayMs = retryDelayMs(
      this.#attempts,
      policy?.retries.backoffMs ?? 0,
      this.#side.state.random,
    );
    this.#retryTimer = setTimeout(() => {
      if (this.#phase !== "retrying") return;
      this.#attempt();
      this.#pump();
    }, delayMs);
  }

  /** Ends the attempt under way and closes its connection. */
  #dropAttempt(): void {
    this.#ticket++;
    clearTimeout(this.#tryTimer);
    clearTimeout(this.#retryTimer);
    const client = this.#client;
    const trying = this.#phase === "connecting" || this.#phase === "active";
    this.#client = undefined;
    if (client !== undefined) {
      client.user = undefined;
      client.connection.destroy();
    }
    if (trying && this.#endpoint !== undefined) this.#endpoint.active--;
    if (trying) this.#phase = "deciding";
    this.#upBlocked = false;
    this.#downBlocked = false;
  }

  /** The request is over: gives back its turn and its share of the budget. */
  #leave(): void {
    if (this.#phase === "active" && this.#endpoint !== undefined) this.#endpoint.active--;
    this.#phase = "deciding";
    this.#allowance.release(this);
  }

  /** Answers the request ourselves. `fields` are extra lines with their CRLF. */
  answer(reason: Reason, message: string, status: number = REASONS[reason].status): void {
    const marked = this.#side.direction === "inbound" && this.downstream.tls !== undefined;
    const fields = marked ? `weft-reason: ${reason}\r\n` : "";
    this.#answerSelf(status, fields, `${reason}: ${message}\n`, reason);
  }

  /** Answers with a redirect. */
  redirect(status: number, location: string, edit: CompiledEdit | undefined): void {
    this.#answerSelf(status, `location: ${location}\r\n${edit?.lines ?? ""}`, "", "");
  }

  /** Goes on reading after a decision that came later than the request. */
  proceed(): void {
    this.#pump();
  }

  #answerSelf(status: number, fields: string, body: string, reason: string): void {
    this.#discardRest();
    const close = this.#closeAfter || this.#side.state.draining;
    this.#closeAfter = close;
    const type = body === "" ? "" : "content-type: text/plain; charset=utf-8\r\n";
    const connection = close ? CLOSE_FIELD : "";
    const headOnly = this.#head?.method === "HEAD";
    this.downstream.write(synthesize(status, type + fields + connection, body, headOnly));
    this.#allowance.release(this);
    this.#finish(status, reason);
  }

  /** Reads the rest of the request if it is here already; otherwise the connection must close. */
  #discardRest(): void {
    if (this.#head === undefined) return;
    if (this.#head.method === "CONNECT" || this.#head.upgrade !== undefined)
      this.#closeAfter = true;
    while (!this.#requestEnded && !this.#closeAfter) {
      const event = this.decoder.next();
      if (event === "end") this.#requestEnded = true;
      else if (event !== "body") this.#closeAfter = true;
    }
  }

  /** The answer has begun and cannot be completed: the caller must not take it for whole. */
  #abort(reason: Reason, status: number): void {
    this.#allowance.release(this);
    this.#record(status, reason);
    this.#phase = "closed";
    this.downstream.destroy();
  }

  // ---- the end ---------------------------------------------------------------------------------

  #finish(status: number, reason: string): void {
    this.#clearTimers();
    this.#record(status, reason);
    this.#downBlocked = false;
    this.#ticks = 0;
    if (this.#closeAfter) {
      this.#phase = "closed";
      this.downstream.close();
      return;
    }
    this.#phase = "idle";
    this.#pump();
  }

  #clearTimers(): void {
    if (this.#requestTimer !== undefined) clearTimeout(this.#requestTimer);
    if (this.#tryTimer !== undefined) clearTimeout(this.#tryTimer);
    if (this.#retryTimer !== undefined) clearTimeout(this.#retryTimer);
    this.#requestTimer = undefined;
    this.#tryTimer = undefined;
    this.#retryTimer = undefined;
  }

  #meter(): RequestMeter {
    const destination = this.#to?.destination;
    if (destination === undefined) return this.#side.meter;
    return destination.meters.http(this.#endpoint?.mesh !== undefined);
  }

  #record(status: number, reason: string): void {
    const { state } = this.#side;
    const durationMs = state.now() - this.#startedAt;
    const meter = this.#meter();
    meter.record(status, reason, durationMs);
    if (this.#received > 0) meter.received.value += this.#received;
    if (this.#sent > 0) meter.sent.value += this.#sent;
    if (state.accessLog === undefined) return;
    logRequest(state.accessLog, this.#side, {
      head: this.#head,
      to: this.#to,
      endpoint: this.#endpoint,
      attempts: this.#attempts,
      received: this.#received,
      sent: this.#sent,
      status,
      reason,
      durationMs,
    });
  }

  // ---- upgrades --------------------------------------------------------------------------------

  /** The server switched protocols: from here on the connection is opaque and never kept. */
  #tunnel(client: HttpClient, head: ResponseHead): void {
    const { downstream } = this;
    const server = client.connection;
    const endpoint = client.endpoint;
    const meter = this.#meter();
    this.#clearTimers();
    this.#client = undefined;
    client.user = undefined;
    downstream.writeHead(
      switchingHeadFor(head, this.head.upgrade ?? ""),
      client.decoder.takeBuffered(),
    );
    const early = this.decoder.takeBuffered();
    if (early.length > 0) server.write(early);
    this.#phase = "tunnel";
    this.#relay = relay(downstream, server, meter, () => {
      endpoint.active--;
      this.#allowance.release(this);
      this.#record(101, "");
      this.close();
    });
  }

  /**
   * A CONNECT was granted: tells the caller and takes the connection away from HTTP. Returns what
   * the caller sent early.
   */
  granted(): Uint8Array {
    this.#phase = "tunnel";
    this.#side.state.open.delete(this);
    this.#record(200, "");
    this.downstream.writeHead(ESTABLISHED, undefined);
    return this.decoder.takeBuffered();
  }
}

const ESTABLISHED = "HTTP/1.1 200 Connection Established\r\n\r\n";
const INTERIM = { chunked: false, close: false, minor: 1 } as const;
