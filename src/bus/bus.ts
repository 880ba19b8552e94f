/**
 * The connection to NATS: requests, core subscriptions, and the bucket of current documents.
 *
 * A `Bus` never gives up: it connects in the background, reconnects for ever with back-off, and
 * keeps its subscriptions. While it is down, publishing is dropped and requests fail at once.
 */
import {
  type ConnectionOptions,
  connect,
  type Msg,
  type NatsConnection,
  type Subscription,
} from "nats";
import type { Failure } from "../error.ts";
import { accountOf, type NatsCredentials, signNonce } from "../identity/nats-auth.ts";
import { directGetSubject, documentSubject } from "../identity/rights.ts";
import { Cell } from "../std/cell.ts";
import { ensureBucket } from "./bucket.ts";
import { BusError, isRecord, jetstreamAnswer, toBusError, toError } from "./bus-error.ts";
import { explainLink, explainWrites, ForeignServer } from "./problem.ts";

export type BusStatus = "up" | "down";

export interface BusOptions {
  readonly servers: readonly string[];
  /** Start of this holder's reply subjects; granted as `<prefix>.>`. */
  readonly inboxPrefix: string;
  /** Asked at every connection, so a renewed JWT is used by the next one. */
  readonly credentials: () => NatsCredentials;
  /**
   * Demands TLS. `ca`: roots instead of the public ones; `serverName`: the DNS name certificates
   * must have instead of the one in the URL.
   */
  readonly tls?: { readonly ca?: readonly string[]; readonly serverName?: string };
  /** An operator runs the servers: what is wrong with them is told with other next steps. */
  readonly external?: boolean;
  /**
   * Stay down unless the server puts us into the account of the credentials. A server without
   * authentication lets everybody in, and would let workloads speak for each other.
   */
  readonly checkAccount?: boolean;
  /** Shown in the server's connection list. */
  readonly name?: string;
  /** What somebody else found out about the servers, told when nothing else is wrong. */
  readonly doubt?: () => Failure | undefined;
  /** In [0, 1); spreads reconnects. */
  readonly random?: () => number;
  /** Hears of errors that no caller is waiting for. */
  readonly failed?: (where: string, error: Error) => void;
}

export interface SubscribeOptions {
  /** The server refused the subscription; it is tried again at the next connection. */
  readonly refused?: (error: Error) => void;
}

type MessageHandler = (subject: string, data: Uint8Array, message: Msg) => void;

interface Wanted {
  readonly subject: string;
  readonly handler: MessageHandler;
  readonly refused: ((error: Error) => void) | undefined;
  live: Subscription | undefined;
}

const RETRY_FIRST_MS = 100;
/** Short, so that a change is everywhere within 3 s after an outage. */
const RETRY_LAST_MS = 2_000;
const CONNECT_TIMEOUT_MS = 3_000;
/** Two missed answers: a dead link is noticed within 15 s. */
const PING_INTERVAL_MS = 5_000;
const REQUEST_TIMEOUT_MS = 3_000;
/** Writes that fail for longer are told to the operator. */
const STUCK_MS = 3_000;

export class Bus {
  readonly status = new Cell<BusStatus>("down");
  readonly #options: BusOptions;
  readonly #wanted = new Set<Wanted>();
  readonly #random: () => number;
  #connection: NatsConnection | undefined;
  #attempts = 0;
  #retryMs = RETRY_FIRST_MS;
  #closed = false;
  #wake: () => void = () => {};

  constructor(options: BusOptions) {
    this.#options = options;
    this.#random = options.random ?? Math.random;
    void this.#run();
  }

  #lastError: unknown;
  #stuckSince: number | undefined;
  #writeError: unknown;

  /**
   * Since when writes have failed although the server is connected, on the `performance.now` clock;
   * undefined while they work.
   */
  get stuckSince(): number | undefined {
    return this.#stuckSince;
  }

  /** Why there is no connection, in the client's words; empty while up. */
  get lastError(): string {
    return this.#lastError === undefined ? "" : toError(this.#lastError).message;
  }

  /** What an operator should know and do; undefined while all is well. */
  get problem(): Failure | undefined {
    const at = this.#options.servers.join(",");
    const external = this.#options.external === true;
    if (this.status.value === "down") return explainLink(this.#lastError ?? "", at, external);
    const stuck = this.#stuckSince !== undefined && performance.now() - this.#stuckSince > STUCK_MS;
    return stuck ? explainWrites(this.#writeError, at, external) : this.#options.doubt?.();
  }

  /** Resolves when connected; rejects with a `BusError` after `timeoutMs`. */
  ready(timeoutMs: number): Promise<void> {
    if (this.status.value === "up") return Promise.resolve();
    return new Promise((done, reject) => {
      const timer = setTimeout(() => {
        stop();
        reject(new BusError("down", `no connection to NATS: ${this.lastError || "no answer"}`));
      }, timeoutMs);
      const stop = this.status.subscribe((status) => {
        if (status !== "up") return;
        clearTimeout(timer);
        stop();
        done();
      });
    });
  }

  /** Sends without confirmation; false while down (the message is dropped). */
  publish(subject: string, data: Uint8Array): boolean {
    const connection = this.#connection;
    if (connection === undefined || this.status.value === "down") return false;
    try {
      connection.publish(subject, data);
      return true;
    } catch (error) {
      this.#report(`publish ${subject}`, error);
      return false;
    }
  }

  async request(
    subject: string,
    data: Uint8Array,
    timeoutMs = REQUEST_TIMEOUT_MS,
  ): Promise<Uint8Array> {
    return (await this.#ask(subject, data, timeoutMs)).data;
  }

  /** Answers requests; undefined, or a rejection, sends no answer. Returns the way to stop. */
  reply(
    subject: string,
    handler: (
      subject: string,
      data: Uint8Array,
    ) => Uint8Array | undefined | Promise<Uint8Array | undefined>,
  ): () => void {
    return this.#add(subject, undefined, (on, data, message) => {
      Promise.resolve(handler(on, data)).then(
        (answer) => {
          if (answer !== undefined && message.reply !== undefined) message.respond(answer);
        },
        (error) => this.#report(`reply ${on}`, error),
      );
    });
  }

  /** Hears every message on `subject` (wildcards allowed). Returns the way to stop. */
  subscribe(
    subject: string,
    handler: (subject: string, data: Uint8Array) => void,
    options: SubscribeOptions = {},
  ): () => void {
    return this.#add(subject, options.refused, handler);
  }

  /** Hears every later value of a document. `key` may end in `.*`. */
  kvSubscribe(
    key: string,
    handler: (key: string, value: Uint8Array) => void,
    options: SubscribeOptions = {},
  ): () => void {
    const start = documentSubject("").length;
    return this.subscribe(
      documentSubject(key),
      (subject, value) => handler(subject.slice(start), value),
      options,
    );
  }

  /** Stores a document; resolves with its sequence number when the server has synced it to disk. */
  async kvPut(key: string, value: Uint8Array): Promise<number> {
    const what = `put ${key}`;
    return this.#written(async () => {
      const bytes = await this.request(documentSubject(key), value);
      const { seq } = jetstreamAnswer(what, bytes);
      if (typeof seq !== "number") throw new BusError("refused", `${what}: no sequence number`);
      return seq;
    });
  }

  /** Current value of a document; undefined when it was never put, or removed. */
  async kvGet(key: string): Promise<Uint8Array | undefined> {
    const message = await this.#ask(directGetSubject(key), new Uint8Array(0), REQUEST_TIMEOUT_MS);
    const { headers } = message;
    const code = headers?.code ?? 0;
    if (code === 404) return undefined;
    if (code >= 300) throw new BusError("refused", `get ${key}: status ${code}`);
    const operation = headers?.get("KV-Operation") ?? "";
    return operation === "DEL" || operation === "PURGE" ? undefined : message.data;
  }

  /** Makes sure that the bucket exists and allows direct get; in a cluster, on three servers. */
  async ensureBucket(): Promise<{ readonly created: boolean }> {
    const clustered = this.#connection?.info?.cluster !== undefined;
    return { created: await ensureBucket((...call) => this.#jetstream(...call), clustered) };
  }

  /** Connects anew with the current credentials; resolves when up again. */
  async reconnect(timeoutMs = CONNECT_TIMEOUT_MS): Promise<void> {
    this.#attempts = 0;
    this.#retryMs = 0;
    if (this.#connection !== undefined && !this.#connection.isClosed()) {
      this.#down("reconnecting with new credentials");
      await this.#connection.reconnect();
    }
    this.#wake();
    await this.ready(timeoutMs);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#wake();
    const connection = this.#connection;
    this.#down("closed");
    if (connection !== undefined && !connection.isClosed()) await connection.close();
  }

  async #ask(subject: string, data: Uint8Array, timeout: number): Promise<Msg> {
    const connection = this.#connection;
    if (connection === undefined || this.status.value === "down") {
      throw new BusError("down", `request ${subject}: no connection to NATS`);
    }
    try {
      return await connection.request(subject, data, { timeout });
    } catch (error) {
      throw toBusError(`request ${subject}`, error);
    }
  }

  /** A JetStream API call; undefined when it failed with one of the expected error numbers. */
  async #jetstream(
    call: string,
    body: object,
    expected: readonly number[] = [],
  ): Promise<Record<string, unknown> | undefined> {
    return this.#written(async () => {
      const bytes = await this.request(`$JS.API.${call}`, Buffer.from(JSON.stringify(body)));
      try {
        return jetstreamAnswer(call, bytes);
      } catch (error) {
        if (error instanceof BusError && expected.some((code) => error.cause === code)) {
          return undefined;
        }
        throw error;
      }
    });
  }

  /** Keeps `stuckSince` along with a write. */
  async #written<T>(write: () => Promise<T>): Promise<T> {
    try {
      const result = await write();
      this.#stuckSince = undefined;
      return result;
    } catch (error) {
      if (this.status.value === "up") this.#stuckSince ??= performance.now();
      this.#writeError = error;
      throw error;
    }
  }

  #report(where: string, error: unknown): void {
    this.#options.failed?.(where, toError(error));
  }

  #add(
    subject: string,
    refused: ((error: Error) => void) | undefined,
    handler: MessageHandler,
  ): () => void {
    const wanted: Wanted = { subject, handler, refused, live: undefined };
    this.#wanted.add(wanted);
    if (this.#connection !== undefined) this.#listen(this.#connection, wanted);
    return () => {
      this.#wanted.delete(wanted);
      if (wanted.live !== undefined && !wanted.live.isClosed()) wanted.live.unsubscribe();
    };
  }

  #listen(connection: NatsConnection, wanted: Wanted): void {
    if (connection.isClosed()) return;
    wanted.live = connection.subscribe(wanted.subject, {
      callback: (error, message) => {
        if (error !== null) {
          wanted.live = undefined;
          if (wanted.refused !== undefined) wanted.refused(error);
          else this.#report(`subscribe ${wanted.subject}`, error);
          return;
        }
        try {
          wanted.handler(message.subject, message.data, message);
        } catch (caught) {
          this.#report(`handler of ${message.subject}`, caught);
        }
      },
    });
  }

  #up(connection: NatsConnection): void {
    this.#attempts = 0;
    this.#retryMs = RETRY_FIRST_MS;
    this.#lastError = undefined;
    for (const wanted of this.#wanted) {
      if (wanted.live === undefined || wanted.live.isClosed()) this.#listen(connection, wanted);
    }
    if (this.status.value !== "up") this.status.set("up");
  }

  #down(why: unknown): void {
    this.#lastError = why;
    if (this.status.value !== "down") this.status.set("down");
  }

  /** Counts an attempt and draws the pause that follows it if it fails. */
  #attempted(): void {
    const ceiling = Math.min(RETRY_FIRST_MS * 2 ** Math.min(this.#attempts++, 10), RETRY_LAST_MS);
    this.#retryMs = ceiling * (0.5 + this.#random() / 2);
  }

  #connectionOptions(): ConnectionOptions {
    const { servers, inboxPrefix, credentials, tls, name } = this.#options;
    return {
      servers: [...servers],
      inboxPrefix,
      ...(name === undefined ? {} : { name }),
      ...(tls === undefined
        ? {}
        : {
            tls: {
              ...(tls.ca === undefined ? {} : { ca: tls.ca.join("\n") }),
              ...(tls.serverName === undefined ? {} : { servername: tls.serverName }),
            },
          }),
      authenticator: (nonce?: string) => {
        const current = credentials();
        return { jwt: current.jwt, nkey: "", sig: signNonce(current, nonce ?? "") };
      },
      timeout: CONNECT_TIMEOUT_MS,
      pingInterval: PING_INTERVAL_MS,
      maxPingOut: 2,
      maxReconnectAttempts: -1,
      // Asked again and again while waiting, so it must not change between attempts.
      reconnectDelayHandler: () => this.#retryMs,
      ignoreAuthErrorAbort: true,
      noAsyncTraces: true,
    };
  }

  /** Connects until closed; the client reconnects by itself, and is replaced when it gives up. */
  async #run(): Promise<void> {
    while (!this.#closed) {
      this.#attempted();
      try {
        const connection = await connect(this.#connectionOptions());
        if (this.#closed) {
          await connection.close();
          return;
        }
        await this.#admit(connection);
        this.#connection = connection;
        for (const wanted of this.#wanted) wanted.live = undefined;
        void this.#follow(connection);
        this.#up(connection);
        const error = await connection.closed();
        this.#connection = undefined;
        if (error !== undefined || this.status.value === "up") this.#down(error ?? "closed");
      } catch (error) {
        this.#down(error);
      }
      if (!this.#closed) await this.#sleep(this.#retryMs);
    }
  }

  /** Closes a connection to a server that does not know who is who. */
  async #admit(connection: NatsConnection): Promise<void> {
    if (this.#options.checkAccount !== true) return;
    try {
      const wanted = accountOf(this.#options.credentials());
      const options = { timeout: REQUEST_TIMEOUT_MS };
      const { data } = await connection.request("$SYS.REQ.USER.INFO", new Uint8Array(0), options);
      const answer = jetstreamAnswer("USER.INFO", data);
      const user = isRecord(answer["data"]) ? answer["data"] : {};
      if (user["account"] !== wanted) throw new ForeignServer(String(user["account"] ?? ""));
    } catch (error) {
      await connection.close();
      throw error;
    }
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((done) => {
      const timer = setTimeout(done, ms);
      this.#wake = () => {
        clearTimeout(timer);
        done();
      };
    });
  }

  /** The client found a server again: it may be another one than before. */
  async #again(connection: NatsConnection): Promise<void> {
    try {
      await this.#admit(connection);
      this.#up(connection);
    } catch (error) {
      this.#down(error);
    }
  }

  async #follow(connection: NatsConnection): Promise<void> {
    for await (const { type, data } of connection.status()) {
      if (connection !== this.#connection) return;
      if (type === "disconnect") this.#down(`disconnected from ${String(data)}`);
      else if (type === "reconnecting") this.#attempted();
      else if (type === "reconnect") await this.#again(connection);
      else if (type === "error") this.#lastError = String(data);
    }
  }
}

/** A bus that connects in the background; use `ready` to wait for it. */
export function openBus(options: BusOptions): Bus {
  return new Bus(options);
}

/** A bus that is connected. Throws a `BusError` when it is not within `timeoutMs`. */
export async function connectBus(options: BusOptions, timeoutMs = 10_000): Promise<Bus> {
  const bus = new Bus(options);
  try {
    await bus.ready(timeoutMs);
    return bus;
  } catch (error) {
    await bus.close();
    throw error;
  }
}
