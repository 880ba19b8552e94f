/**
 * One caller's HTTP/1.1 connection, and the request on it that is being served. The object lives
 * as long as the connection and is used again for every request, so that the steady path creates
 * nothing but the head it sends on. What happens towards the endpoint is in `Attempts`.
 *
 *                            ┌─────▶ gathering ──body is here──┐
 *   idle ──head──▶ deciding ─┴─────────forward──▶ forwarding ◀─┘ ──end of the answer──▶ idle
 *                     └──answer──▶ idle    │    └──101──▶ tunnel
 *                                          └──given up──▶ idle; any ──close──▶ closed
 */
import { MeshError, REASONS, type Reason } from "../error.ts";
import { RequestDecoder } from "../http/h1/decode.ts";
import type { H1Error } from "../http/h1/malformed.ts";
import { retarget, withHost } from "../http/h1/request-head.ts";
import type { RequestHead, ResponseHead } from "../http/message.ts";
import { guarded } from "../net/boundary.ts";
import type { Connection, ConnectionHandler } from "../net/connection.ts";
import type { HttpClient } from "../upstream/http-client.ts";
import { Attempts, type Sender } from "./attempts.ts";
import { type Forward, isBusy } from "./forward.ts";
import { ownAnswer, responseHeadFor, switchingHeadFor } from "./heads.ts";
import { MessageWriter } from "./message-writer.ts";
import { type Relay, relay } from "./relay.ts";
import type { Side } from "./side.ts";
import { Standstill } from "./standstill.ts";
import type { Ticking } from "./state.ts";
import { Tally } from "./tally.ts";

type Phase = "idle" | "deciding" | "gathering" | "forwarding" | "tunnel" | "closed";

/**
 * Received and not yet sent on: beyond this the caller is paused. Also what it may leave unread of
 * its answers before its next request is looked at, and the body that is waited for to its end.
 */
const HOLD_BYTES_MAX = 64 * 1024;
/** From the first byte of a head to its last, seconds. */
const HEAD_SECONDS = 10;
/** Status in metrics and logs of a request whose caller went away (nginx's). */
const CALLER_GONE = 499;

export class Exchange implements ConnectionHandler, Sender, Ticking {
  readonly downstream: Connection;
  readonly decoder: RequestDecoder;
  readonly #side: Side<Exchange>;
  #phase: Phase = "idle";
  #pumping = false;
  readonly #still = new Standstill();

  /** The request: valid outside of "idle". */
  #head: RequestHead | undefined;
  #to: Forward | undefined;
  #requestEnded = false;
  #closeAfter = false;
  readonly #attempts: Attempts;
  readonly #tally: Tally;

  /** The answer. */
  #answerHead: ResponseHead | undefined;
  readonly #down = new MessageWriter();
  #downBlocked = false;

  #requestTimer: ReturnType<typeof setTimeout> | undefined;
  #relay: Relay | undefined;

  constructor(downstream: Connection, side: Side<Exchange>) {
    this.downstream = downstream;
    this.#side = side;
    this.decoder = new RequestDecoder(side.limits);
    this.#attempts = new Attempts(this, side);
    this.#tally = new Tally(side, this.#attempts, downstream);
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

  get requestEnded(): boolean {
    return this.#requestEnded;
  }

  get trailers(): string {
    return this.decoder.trailers;
  }

  /** Deciding or waiting: what `begin` may come back to. */
  get deciding(): boolean {
    return this.#phase === "deciding";
  }

  get pendingBytes(): number {
    return this.#relay?.pendingBytes ?? this.downstream.pendingBytes + this.#attempts.pendingBytes;
  }

  /** No request is under way or arriving, and no answer has to reach the caller any more. */
  get idle(): boolean {
    const { downstream } = this;
    if (downstream.closed) return true;
    return this.#phase === "idle" && this.decoder.idle && downstream.queuedBytes === 0;
  }

  // ---- the caller's side -------------------------------------------------------------------

  data(_c: Connection, chunk: Uint8Array): void {
    // Only the first byte of a head starts its clock: dripping more does not buy time.
    if (this.#phase === "idle" && this.decoder.buffered === 0) this.#still.end();
    this.decoder.push(chunk);
    this.#pump();
  }

  /** A caller that stops sending while it is owed an answer has gone away, as for most servers. */
  end(c: Connection): void {
    if (this.#phase === "idle" && this.decoder.idle) c.close();
    else c.destroy();
  }

  drain(): void {
    if (this.#downBlocked) {
      this.#downBlocked = false;
      this.#attempts.release();
    } else if (this.#phase === "idle") this.#pump();
  }

  close(): void {
    const phase = this.#phase;
    const under = phase === "deciding" || phase === "gathering" || phase === "forwarding";
    this.#phase = "closed";
    this.#side.state.open.delete(this);
    this.#clearTimer();
    if (!under) return;
    this.#attempts.drop();
    this.#attempts.leave();
    this.#record(CALLER_GONE, "");
  }

  tick(): void {
    if (this.#phase !== "idle" || this.downstream.queuedBytes > 0) {
      this.#tickUnderWay();
      return;
    }
    const seconds = this.#still.second();
    if (this.decoder.idle) {
      if (seconds > this.#side.idleSeconds) this.#endBetween("idle");
    } else if (seconds > HEAD_SECONDS) {
      this.#begin(undefined);
      this.#closeAfter = true;
      this.answer("bad_request", "the request's head did not arrive in time", 408);
    }
  }

  #tickUnderWay(): void {
    if (this.#phase === "tunnel") {
      if (!this.#side.permitted) this.shut(true);
      else this.#relay?.tick();
      return;
    }
    const down = this.downstream.queuedBytes;
    const up = this.#attempts.queuedBytes;
    const gathering = this.#phase === "gathering";
    const owed = gathering || (this.#attempts.active && !this.#requestEnded);
    const talk = this.#answerHead !== undefined && down === 0 && up === 0;
    // It is the caller who is slow, not an application that takes its time.
    const dripping = owed && up === 0;
    const hurry =
      !talk && ((dripping && this.#hasSmallBody) || ((dripping || down > 0) && this.#crowded));
    const gathered = gathering ? this.decoder.buffered : 0;
    const passed = this.#tally.received + this.#tally.sent + gathered;
    if (!this.#still.tooLong(passed, down + up, owed || down + up > 0, talk, hurry)) return;
    if (this.#phase === "idle" || this.#phase === "closed") {
      this.#endBetween("unread");
      return;
    }
    this.#attempts.drop();
    this.#closeAfter = true;
    const message = "hardly anything moved for too long";
    if (this.#answerHead !== undefined) this.#abort("timeout", this.#answerHead.status);
    else if (up > 0) this.answer("timeout", message);
    else this.answer("bad_request", message, 408);
  }

  /** Ends the connection while no request is under way. */
  #endBetween(reason: "idle" | "unread"): void {
    const { state, direction, workload } = this.#side;
    const crowded = reason === "idle" && state.rooms[direction].crowded;
    const why = crowded ? "crowded" : reason;
    state.golden.connectionsEnded.slot(direction, workload, why).value++;
    this.#phase = "closed";
    if (reason === "idle") this.downstream.close();
    else this.downstream.destroy();
  }

  /** Others wait for what this request holds. */
  get #crowded(): boolean {
    const { state, direction } = this.#side;
    return this.#attempts.crowded || state.rooms[direction].crowded;
  }

  shut(force: boolean): void {
    if (force) {
      this.#relay?.destroy();
      this.downstream.destroy();
    } else if (this.#phase === "idle" && this.decoder.idle) {
      this.#phase = "closed";
      this.downstream.close();
    } else this.#closeAfter = true;
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
    this.downstream.kept = this.decoder.buffered;
    if (this.#attempts.blocked || this.decoder.buffered > HOLD_BYTES_MAX) this.downstream.pause();
    else if (phase !== "deciding") this.downstream.resume();
  }

  /** False: nothing more to read for now. */
  #step(): boolean {
    if (this.#attempts.active) return this.#sendBody();
    if (this.#phase === "gathering" && !this.#gathers()) {
      this.#begun();
      return true;
    }
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
    this.#tally.begin();
    this.#requestEnded = false;
    this.#closeAfter = head === undefined || !head.keepAlive || this.#side.state.draining;
    this.#answerHead = undefined;
    this.#down.clear();
    this.#to = undefined;
    this.#attempts.reset();
  }

  /** Goes on as if the request had named `target`. */
  retarget(target: string): void {
    this.#head = retarget(this.head, target);
  }

  /** Goes on as if the request, of HTTP/1.0 and without Host, had named `authority`. */
  address(authority: string): void {
    this.#head = withHost(this.head, authority);
  }

  countPath(outcome: "changed" | "refused" | "reported"): void {
    const { state, direction, workload } = this.#side;
    state.golden.pathNormalizations.slot(direction, workload, outcome).value++;
  }

  // ---- towards the endpoint ------------------------------------------------------------------

  /** Sends the request on. */
  forward(to: Forward): void {
    this.#to = to;
    const timeoutMs = to.rule?.requestTimeoutMs ?? 0;
    if (timeoutMs > 0) {
      const over = () => this.#timedOut(timeoutMs);
      this.#requestTimer = setTimeout(() => guarded("timer", this.downstream, over), timeoutMs);
    }
    if (this.#gathers()) this.#phase = "gathering";
    else this.#begun();
  }

  /** Where connections are in demand a small body comes first: one that drips would hold one. */
  #gathers(): boolean {
    const missing = this.decoder.buffered < this.head.contentLength;
    return missing && this.#hasSmallBody && isBusy(this.#to!);
  }

  /** A body that its caller could have sent at once, and need not be asked for. */
  get #hasSmallBody(): boolean {
    const { contentLength, expectContinue, upgrade } = this.head;
    return (
      contentLength <= HOLD_BYTES_MAX &&
      !expectContinue &&
      upgrade === undefined &&
      contentLength > 0
    );
  }

  #begun(): void {
    this.#phase = "forwarding";
    this.#attempts.begin(this.#to!);
  }

  onBlocked(): void {
    this.downstream.pause();
  }

  /** Moves body bytes to the endpoint. False: no more for now. */
  #sendBody(): boolean {
    if (this.#requestEnded) return false;
    const attempts = this.#attempts;
    let body: Uint8Array | undefined;
    while (!attempts.blocked && attempts.active) {
      const event = this.decoder.next();
      if (event === "body") {
        if (body !== undefined) attempts.send(body, false);
        body = this.decoder.body;
        this.#tally.received += body.length;
        attempts.keep(body);
      } else if (event === "end") {
        this.#requestEnded = true;
        attempts.send(body, true);
        return false;
      } else if (event === "more") break;
      else {
        this.#badBody(this.decoder.error);
        return false;
      }
    }
    attempts.send(body, false);
    return false;
  }

  #badBody(error: H1Error): void {
    this.#attempts.drop();
    this.#closeAfter = true;
    if (this.#answerHead === undefined) this.answer(error.reason, error.message, error.status);
    else this.#abort(error.reason, error.status);
  }

  // ---- the answer ------------------------------------------------------------------------------

  onAnswer(client: HttpClient): void {
    const { decoder } = client;
    let body: Uint8Array | undefined;
    while (!this.#downBlocked) {
      const event = decoder.next();
      if (event === "body") {
        if (body !== undefined) this.#sendDown(body, false, "");
        body = decoder.body;
        this.#tally.sent += body.length;
      } else if (event === "head") {
        if (!this.#onAnswerHead(client, decoder.head)) return;
      } else if (event === "end") {
        this.#sendDown(body, true, decoder.trailers);
        this.#answerEnded(client);
        return;
      } else if (event === "more") break;
      else {
        this.#attempts.fail("upstream_invalid", "invalid", decoder.error.message);
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
    if (this.#attempts.retriesInstead(client, head)) return false;
    if (head.status === 101 && !this.#requestEnded) {
      // RFC 9110, 7.8: the request is read to its end first; what is left of it is no tunnel.
      this.#attempts.fail("upstream_invalid", "invalid", "upstream switched protocols early");
      return false;
    }
    this.#answerHead = head;
    this.#attempts.accept(client, head);
    if (head.status === 101) {
      this.#tunnel(client, head);
      return false;
    }
    // An error before the request's end is the end of it, as a rule: the caller hears it in time.
    const early = head.status >= 400 && !this.#requestEnded;
    if (early || this.#side.state.draining || this.head.upgrade !== undefined) {
      this.#closeAfter = true;
    }
    const endless = client.decoder.untilClose || head.chunked;
    const chunked = endless && this.head.minor === 1;
    if (endless && !chunked) this.#closeAfter = true;
    const framing = { chunked, close: this.#closeAfter, minor: this.head.minor };
    const edit = this.#to?.backend?.responseHeaders;
    this.#down.begin(responseHeadFor(head, edit, framing), chunked);
    return true;
  }

  #sendDown(body: Uint8Array | undefined, last: boolean, trailers: string): void {
    if (this.#down.send(this.downstream, body, last, trailers) || last) return;
    this.#downBlocked = true;
    this.#attempts.hold();
  }

  #answerEnded(client: HttpClient): void {
    const head = this.#answerHead!;
    const reusable = this.#requestEnded && this.head.upgrade === undefined;
    this.#attempts.complete(client, head, reusable);
    this.#discardRest();
    const said = client.endpoint.mesh === undefined ? "" : (head.reason ?? "");
    this.#finish(head.status, said);
  }

  onAnswerEnded(client: HttpClient): void {
    this.#sendDown(undefined, true, "");
    this.#answerEnded(client);
  }

  // ---- failures --------------------------------------------------------------------------------

  #timedOut(timeoutMs: number): void {
    if (this.#phase !== "forwarding" && this.#phase !== "gathering") return;
    this.#attempts.drop();
    if (this.#answerHead === undefined) this.answer("timeout", `no answer within ${timeoutMs} ms`);
    else this.#abort("timeout", REASONS.timeout.status);
    this.#pump();
  }

  onGivenUp(reason: Reason, message: string): void {
    const { state, direction } = this.#side;
    // Its place is worth more to others.
    const tight = state.rooms[direction].tight(this.downstream.source);
    if (reason === "overflow" && tight) this.#closeAfter = true;
    if (this.#answerHead === undefined) this.answer(reason, message);
    else this.#abort(reason, this.#answerHead.status);
  }

  /** Answers the request ourselves. */
  answer(reason: Reason, message: string, status: number = REASONS[reason].status): void {
    const marked = this.#side.direction === "inbound" && this.downstream.tls !== undefined;
    const fields = marked ? `weft-reason: ${reason}\r\n` : "";
    this.#answerSelf(status, fields, `${reason}: ${message}\n`, reason);
  }

  /** Answers without a body and without fault. `fields` are lines with their CRLF. */
  reply(status: number, fields: string): void {
    this.#answerSelf(status, fields, "", "");
  }

  /** Goes on reading: a decision came later than the request, or the endpoint takes more. */
  proceed(): void {
    this.#pump();
  }

  #answerSelf(status: number, fields: string, body: string, reason: string): void {
    this.#discardRest();
    // What keeps a connection of HTTP/1.0 is said in answers that are passed on only.
    if (this.#side.state.draining || this.#head?.minor === 0) this.#closeAfter = true;
    const how = { close: this.#closeAfter, headOnly: this.#head?.method === "HEAD" };
    this.downstream.write(ownAnswer(status, fields, body, how));
    this.#attempts.leave();
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
    this.#attempts.leave();
    this.#record(status, reason);
    this.#phase = "closed";
    this.downstream.destroy();
  }

  // ---- the end ---------------------------------------------------------------------------------

  #finish(status: number, reason: string): void {
    this.#clearTimer();
    this.#record(status, reason);
    this.#downBlocked = false;
    this.#still.end();
    if (this.#closeAfter) {
      this.#phase = "closed";
      this.downstream.close();
      return;
    }
    this.#phase = "idle";
    this.#pump();
  }

  #clearTimer(): void {
    if (this.#requestTimer !== undefined) clearTimeout(this.#requestTimer);
    this.#requestTimer = undefined;
  }

  #record(status: number, reason: string): void {
    this.#tally.record(status, reason, this.#head, this.#to, this.#relay);
  }

  // ---- upgrades --------------------------------------------------------------------------------

  /** The server switched protocols: from here on the connection is opaque and never kept. */
  #tunnel(client: HttpClient, head: ResponseHead): void {
    const { downstream } = this;
    const server = client.connection;
    const meter = this.#tally.meter(this.#to);
    this.#clearTimer();
    this.#attempts.detach(client);
    const switching = switchingHeadFor(head, this.head.upgrade ?? "");
    const first = client.decoder.takeBuffered();
    downstream.writeHead(switching, first);
    const early = this.decoder.takeBuffered();
    if (early.length > 0) server.write(early);
    this.#tally.sent = first.length;
    this.#tally.received = early.length;
    this.#phase = "tunnel";
    this.#relay = relay(downstream, server, meter, (error) => {
      this.#attempts.leave();
      this.#record(101, error instanceof MeshError ? error.reason : "");
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
