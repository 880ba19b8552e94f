/**
 * The attempts of one request to reach an endpoint: waits for a turn, picks, dials, sends, and
 * when that fails starts over as far as policy, budget and the bytes still at hand allow. The
 * object belongs to its caller's connection and is used again for every request.
 *
 *   none ──begin──▶ queued ──turn──▶ connecting ──▶ active ──leave──▶ none
 *             └──────────────────────▲  │  ▲          │
 *                                       ▼  └─────┐    │
 *                                     retrying ──┘ ◀──┘ (no byte of the answer was passed on)
 */
import { MeshError, type Reason } from "../error.ts";
import type { RequestHead, ResponseHead } from "../http/message.ts";
import { guarded } from "../net/boundary.ts";
import type { Connection } from "../net/connection.ts";
import type { Room } from "../net/room.ts";
import type { Source } from "../net/shares.ts";
import type { Waiter } from "../upstream/destination.ts";
import type { ConnectUser, Endpoint } from "../upstream/endpoint.ts";
import type { ClientUser, HttpClient } from "../upstream/http-client.ts";
import { Allowance } from "./allowance.ts";
import type { Forward } from "./forward.ts";
import { missingIds, requestHeadFor } from "./heads.ts";
import { MessageWriter } from "./message-writer.ts";
import { type FailureKind, ReplayBuffer, retryDelayMs } from "./retry.ts";
import type { Side } from "./side.ts";
import { GREEDY } from "./state.ts";

/** The request that is being sent, and who hears how it goes. */
export interface Sender {
  readonly head: RequestHead;
  /** What an exception in a callback costs. */
  readonly downstream: Connection;
  /** Its body has been received to the end. */
  readonly requestEnded: boolean;
  /** Raw lines after a chunked body. */
  readonly trailers: string;
  /** Go on: the endpoint takes body bytes. */
  proceed(): void;
  /** The endpoint takes no more for now: `proceed` comes later. */
  onBlocked(): void;
  /** There are bytes of the answer in `client.decoder`. */
  onAnswer(client: HttpClient): void;
  /** The answer was to end with the connection, and so it did. */
  onAnswerEnded(client: HttpClient): void;
  /** There will be no answer, or none to its end. The attempt is over. */
  onGivenUp(reason: Reason, message: string): void;
}

type Phase = "none" | "queued" | "connecting" | "active" | "retrying";

export class Attempts implements ClientUser, ConnectUser, Waiter {
  readonly #sender: Sender;
  readonly #side: Side<never>;
  #phase: Phase = "none";
  #to: Forward | undefined;
  #count = 0;
  #ids = "";
  readonly #allowance = new Allowance();
  /** Set while the request is counted as this source's. */
  #source: Source | undefined;
  readonly #up = new MessageWriter();
  readonly #replay = new ReplayBuffer();

  /** The attempt under way. */
  #ticket = 0;
  #endpoint: Endpoint | undefined;
  /** Endpoints that failed this request. */
  #tried: Endpoint[] | undefined;
  #client: HttpClient | undefined;
  #blocked = false;
  /** Some of the request may have reached the endpoint. */
  #sent = false;
  /** The next attempt opens a connection: what was kept has proved stale. */
  #fresh = false;
  /** The answer is being passed on: from here there is no other attempt. */
  #accepted = false;
  #held = false;
  #endHeld = false;

  #tryTimer: ReturnType<typeof setTimeout> | undefined;
  #retryTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(sender: Sender, side: Side<never>) {
    this.#sender = sender;
    this.#side = side;
  }

  /** How many were made. */
  get count(): number {
    return this.#count;
  }

  /** Field lines with the ids that the request came without; all attempts carry the same. */
  get ids(): string {
    return this.#ids;
  }

  /** The latest that was chosen. */
  get endpoint(): Endpoint | undefined {
    return this.#endpoint;
  }

  /** An endpoint has the request. */
  get active(): boolean {
    return this.#phase === "active" && this.#client !== undefined;
  }

  /** Other requests wait for a connection such as this one holds. */
  get crowded(): boolean {
    return this.#to?.destination?.crowded === true;
  }

  /** The endpoint takes no more body bytes for now. */
  get blocked(): boolean {
    return this.#blocked;
  }

  /** Written and not yet taken by the endpoint. */
  get queuedBytes(): number {
    return this.#client?.connection.queuedBytes ?? 0;
  }

  /** Held because of the endpoint. */
  get pendingBytes(): number {
    return this.#client?.connection.pendingBytes ?? 0;
  }

  /** Nothing of the request before is left. */
  reset(): void {
    this.#to = undefined;
    this.#count = 0;
    this.#ids = "";
    this.#endpoint = undefined;
    this.#tried = undefined;
    this.#accepted = false;
    this.#fresh = false;
    this.#replay.clear();
  }

  begin(to: Forward): void {
    this.#to = to;
    if (!this.#counted()) {
      this.#sender.onGivenUp("overflow", GREEDY);
      return;
    }
    const { head } = this.#sender;
    this.#ids = missingIds(head, this.#side.state.random);
    this.#up.begin(requestHeadFor(head, to, this.#ids), head.chunked);
    if (to.destination !== undefined) {
      const entry = this.#allowance.enter(to.destination, this);
      if (entry === "full") {
        this.#sender.onGivenUp("overflow", "too many requests are waiting for this service");
        return;
      }
      if (entry === "wait") {
        this.#phase = "queued";
        return;
      }
    }
    this.#attempt();
  }

  /** Counts the request as its source's. False: that has too much already. */
  #counted(): boolean {
    const { source } = this.#sender.downstream;
    if (source === undefined) return true;
    if (!this.#room.begin(source)) return false;
    this.#source = source;
    return true;
  }

  get #room(): Room {
    return this.#side.state.rooms[this.#side.direction];
  }

  onTurn(): void {
    this.#allowance.arrived();
    // It is somebody else's end that gives the turn.
    this.#guarded("turn", () => {
      this.#attempt();
      this.#sender.proceed();
    });
  }

  #guarded(site: string, run: () => void): void {
    guarded(site, this.#sender.downstream, run);
  }

  #attempt(): void {
    const to = this.#to!;
    const { now, random } = this.#side.state;
    const at = now();
    const endpoint = to.endpoint ?? to.destination?.pick(at, random, this.#tried);
    if (endpoint === undefined) {
      this.#phase = "none";
      this.#sender.onGivenUp("no_endpoint", "no instance of the service is up and healthy");
      return;
    }
    this.#count++;
    this.#endpoint = endpoint;
    endpoint.active++;
    const tryMs = to.backend?.perTryTimeoutMs ?? 0;
    if (tryMs > 0) this.#tryTimer = setTimeout(() => this.#timedOut(tryMs), tryMs);
    const client = this.#fresh ? undefined : endpoint.take(at);
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
    this.#guarded("connected", () => {
      this.#use(client);
      this.#sender.proceed();
    });
  }

  onConnectFailed(error: Error, ticket: number): void {
    if (ticket !== this.#ticket || this.#phase !== "connecting") return;
    const reason = this.#side.direction === "inbound" ? "app_unreachable" : "connect_failed";
    this.#guarded("unconnected", () => {
      if (error instanceof MeshError) this.giveUp(error.reason, error.message);
      else this.fail(reason, "connect", `cannot reach ${this.#endpoint?.name}: ${error.message}`);
    });
  }

  #use(client: HttpClient): void {
    this.#phase = "active";
    this.#client = client;
    this.#sent = false;
    this.#blocked = false;
    this.#held = false;
    this.#endHeld = false;
    client.user = this;
    const { head, requestEnded } = this.#sender;
    client.decoder.expect(head.method, head.upgrade !== undefined);
    if (this.#replay.length === 0 && !requestEnded) return;
    // What an earlier attempt has sent already.
    for (const chunk of this.#replay.chunks()) this.#write(chunk, false);
    if (requestEnded) this.#write(undefined, true);
  }

  // ---- the request's bytes ---------------------------------------------------------------------

  /** Sends a piece of the body; `last`: it is complete. */
  send(body: Uint8Array | undefined, last: boolean): void {
    if (body !== undefined || last || this.#up.pending) this.#write(body, last);
  }

  /** Remembers a piece of the body for another attempt. */
  keep(body: Uint8Array): void {
    this.#replay.add(body);
  }

  #write(body: Uint8Array | undefined, last: boolean): void {
    const { connection } = this.#client!;
    const taken = this.#up.send(connection, body, last, this.#sender.trailers);
    if (!connection.broken) this.#sent = true;
    if (taken) return;
    this.#blocked = true;
    this.#sender.onBlocked();
  }

  onClientDrain(client: HttpClient): void {
    if (client !== this.#client || !this.#blocked) return;
    this.#blocked = false;
    this.#sender.proceed();
  }

  // ---- the answer ------------------------------------------------------------------------------

  onAnswer(client: HttpClient): void {
    if (client === this.#client && !this.#held) this.#sender.onAnswer(client);
  }

  /** An answer that says that nothing was done, or one the policy retries: true if it is retried. */
  retriesInstead(client: HttpClient, head: ResponseHead): boolean {
    const said = client.endpoint.mesh === undefined ? undefined : head.reason;
    const codes = this.#to?.destination?.target.policy.retries.codes;
    let kind: FailureKind;
    if (said === "app_unreachable" || said === "draining") kind = said;
    else if (codes !== undefined && codes.length > 0 && codes.includes(head.status)) kind = "code";
    else return false;
    if (said === "app_unreachable") this.#endpoint?.avoid();
    if (!this.#takeRetry(kind)) return false;
    this.drop();
    this.#retry();
    return true;
  }

  /** This answer is passed on. */
  accept(client: HttpClient, head: ResponseHead): void {
    this.#accepted = true;
    const unserved = client.endpoint.mesh !== undefined && head.reason === "app_unreachable";
    if (!unserved) this.#endpoint?.worked();
    this.#replay.clear();
    if (this.#tryTimer !== undefined) clearTimeout(this.#tryTimer);
  }

  /** The caller reads slowly: no more of the answer until `release`. */
  hold(): void {
    this.#held = true;
    this.#client?.connection.pause();
  }

  release(): void {
    if (!this.#held) return;
    this.#held = false;
    const client = this.#client;
    if (client === undefined) return;
    this.#sender.onAnswer(client);
    if (client !== this.#client || this.#held) return;
    if (this.#endHeld) this.#clientGone(client, undefined);
    else client.connection.resume();
  }

  /**
   * The answer is complete: its connection is kept for another request if `reusable` and both
   * peers agree, and the next request waiting gets this one's turn.
   */
  complete(client: HttpClient, head: ResponseHead, reusable: boolean): void {
    this.#client = undefined;
    this.#held = false;
    client.user = undefined;
    const { connection } = client;
    if (
      reusable &&
      head.keepAlive &&
      client.decoder.buffered === 0 &&
      connection.queuedBytes === 0
    ) {
      // It was paused if this caller read slowly; the next one must hear it.
      connection.resume();
      const idleMs = keptMs(head.keepAliveTimeout, this.#to!.idleTimeoutMs);
      client.endpoint.put(client, this.#side.state.now(), idleMs);
    } else if (this.#sender.requestEnded) connection.close();
    else connection.destroy();
    this.leave();
  }

  /** Takes the connection out of HTTP; `leave` still has to come. */
  detach(client: HttpClient): void {
    this.#clearTimers();
    this.#client = undefined;
    client.user = undefined;
  }

  onClientEnd(client: HttpClient): void {
    if (client !== this.#client) return;
    if (this.#held) this.#endHeld = true;
    else this.#clientGone(client, undefined);
  }

  onClientClosed(client: HttpClient, error: Error | undefined): void {
    if (client === this.#client) this.#clientGone(client, error);
  }

  #clientGone(client: HttpClient, error: Error | undefined): void {
    if (error === undefined && !client.connection.destroyed && client.decoder.untilClose) {
      client.decoder.finish();
      this.#sender.onAnswerEnded(client);
      return;
    }
    const name = this.#endpoint?.name;
    if (client.answered) {
      this.fail("upstream_reset", "reset", `${name} closed before its answer ended`);
    } else if (client.served > 0) {
      const kind = this.#sent ? "stale" : "unsent";
      this.fail("upstream_reset", kind, `${name} closed a kept connection`);
    } else if (!this.#sent) {
      this.fail("connect_failed", "connect", `${name} closed before the request was sent`);
    } else if (error === undefined && client.endpoint.mesh !== undefined) {
      // A peer that refuses our certificate says so only by closing.
      this.fail("connect_failed", "refused", `${name} closed before any answer`);
    } else {
      this.fail("upstream_reset", "reset", `${name} closed before any answer`);
    }
  }

  // ---- failures --------------------------------------------------------------------------------

  #timedOut(timeoutMs: number): void {
    if (this.#accepted) return;
    this.#guarded("try timer", () => {
      this.fail("timeout", "timeout", `no answer within ${timeoutMs} ms`);
    });
  }

  /** The attempt under way is over: another one, or none. */
  fail(reason: Reason, kind: FailureKind, message: string): void {
    const retry = !this.#accepted && this.#takeRetry(kind);
    this.#fresh = kind === "stale" || kind === "unsent";
    this.drop();
    if (retry) this.#retry();
    else this.#sender.onGivenUp(reason, message);
  }

  /** Another attempt would be of no use. */
  giveUp(reason: Reason, message: string): void {
    this.drop();
    this.#sender.onGivenUp(reason, message);
  }

  #takeRetry(kind: FailureKind): boolean {
    if (!this.#replay.complete) return false;
    const count = { golden: this.#side.state.golden, workload: this.#side.workload };
    return this.#allowance.retry(kind, this.#count, this.#sender.head.method, count);
  }

  #retry(): void {
    this.#phase = "retrying";
    const { head } = this.#sender;
    const { random } = this.#side.state;
    this.#up.begin(requestHeadFor(head, this.#to!, this.#ids), head.chunked);
    if (this.#endpoint !== undefined) {
      this.#tried ??= [];
      this.#tried.push(this.#endpoint);
    }
    const backoffMs = this.#to?.destination?.target.policy.retries.backoffMs ?? 0;
    const delayMs = retryDelayMs(this.#count, backoffMs, random);
    const again = () => {
      if (this.#phase !== "retrying") return;
      this.#attempt();
      this.#sender.proceed();
    };
    this.#retryTimer = setTimeout(() => this.#guarded("retry", again), delayMs);
  }

  /** Ends the attempt under way and closes its connection. */
  drop(): void {
    this.#ticket++;
    this.#clearTimers();
    const client = this.#client;
    this.#client = undefined;
    if (client !== undefined) {
      client.user = undefined;
      client.connection.destroy();
    }
    this.#endAttempt();
    this.#blocked = false;
    this.#held = false;
  }

  /** The request is over: gives back its turn, its place and its share of the budget. */
  leave(): void {
    this.#endAttempt();
    const source = this.#source;
    this.#source = undefined;
    if (source !== undefined) this.#room.end(source);
    this.#allowance.release(this);
  }

  #endAttempt(): void {
    const under = this.#phase === "connecting" || this.#phase === "active";
    if (under && this.#endpoint !== undefined) this.#endpoint.active--;
    this.#phase = "none";
  }

  #clearTimers(): void {
    if (this.#tryTimer !== undefined) clearTimeout(this.#tryTimer);
    if (this.#retryTimer !== undefined) clearTimeout(this.#retryTimer);
    this.#tryTimer = undefined;
    this.#retryTimer = undefined;
  }
}

/**
 * How long a connection is kept that its server keeps for `offered` seconds (-1: it does not say).
 * The server counts from its side: it is left a second of doubt, or half of a short time.
 */
function keptMs(offered: number, limitMs: number): number {
  return offered < 0 ? limitMs : Math.min(limitMs, offered * 1000 - Math.min(1000, offered * 500));
}
