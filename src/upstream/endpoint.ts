/**
 * One address that serves a service port, as one local workload sees it: how to dial it, how busy
 * it is, and the connections kept open to it. No connection is ever shared between workloads.
 */
import { MeshError } from "../error.ts";
import type { Connection, ConnectionHandler } from "../net/connection.ts";
import { dial } from "../net/dial.ts";
import type { Keeper, Room } from "../net/room.ts";
import type { TlsContext } from "../net/tls.ts";
import type { Edge } from "../telemetry/golden.ts";
import { type ClientHome, HttpClient } from "./http-client.ts";
import type { OutsideDial } from "./outside-dial.ts";

/** How an endpoint behind a proxy is dialled. */
export interface MeshDial {
  readonly sni: string;
  /** The only identity its certificate may carry. */
  readonly identity: string;
  /** The workload's current context; undefined until it has a certificate. */
  readonly context: () => TlsContext | undefined;
}

export interface EndpointAddress {
  readonly host: string;
  readonly port: number;
  /** Absent: there is no proxy of the mesh. */
  readonly mesh?: MeshDial;
  /** Set for a server without a proxy; absent also for the application behind this one. */
  readonly outside?: OutsideDial;
  readonly weight: number;
}

/** The dialler of an HTTP connection. `ticket` is what it gave to `connect`. */
export interface ConnectUser {
  onConnected(client: HttpClient, ticket: number): void;
  /** A `MeshError` says that it was not tried. */
  onConnectFailed(error: Error, ticket: number): void;
}

/** mtls: a proxy of the mesh. tls: a server outside, verified as its policy says. */
export type Security = Edge["tls"];

const AVOID_MS = 1000;
const AVOID_DOUBLINGS_MAX = 4;

export class Endpoint implements ClientHome, Keeper {
  readonly host: string;
  readonly port: number;
  readonly weight: number;
  readonly mesh: MeshDial | undefined;
  readonly #outside: OutsideDial | undefined;
  active = 0;
  readonly #now: () => number;
  readonly #room: Room;
  #idle: HttpClient[] = [];
  #retired = false;
  /** Times it was avoided since it last worked. */
  #failures = 0;
  #avoidUntil = 0;
  #probeUntil = 0;

  /** `now`: monotonic milliseconds. */
  constructor(address: EndpointAddress, now: () => number, room: Room) {
    this.#now = now;
    this.#room = room;
    room.keepers.add(this);
    this.host = address.host;
    this.port = address.port;
    this.weight = address.weight;
    this.mesh = address.mesh;
    this.#outside = address.outside;
  }

  /** How connections to it are protected. */
  get security(): Security {
    if (this.mesh !== undefined) return "mtls";
    return this.#outside?.secure === true ? "tls" : "none";
  }

  get name(): string {
    return `${this.host}:${this.port}`;
  }

  get idle(): number {
    return this.#idle.length;
  }

  /** A connect failed recently, or the application behind it was away: others go first. */
  avoided(now: number): boolean {
    return this.#failures > 0 && now < Math.max(this.#avoidUntil, this.#probeUntil);
  }

  /** It was chosen. If it failed before, this request alone finds out whether it is back. */
  chosen(now: number): void {
    if (this.#failures > 0 && now >= this.#avoidUntil) this.#probeUntil = now + AVOID_MS;
  }

  /** It has served: whatever was wrong is over. */
  worked(): void {
    this.#failures = 0;
  }

  /** A kept connection that can take a request now. */
  take(now: number): HttpClient | undefined {
    for (let client = this.#idle.pop(); client !== undefined; client = this.#idle.pop()) {
      this.#room.kept--;
      if (this.#usable(client, now)) return client;
      client.connection.close();
    }
    return undefined;
  }

  #usable(client: HttpClient, now: number): boolean {
    const { connection } = client;
    if (connection.closed || connection.peerEnded) return false;
    if (now - client.idleSince >= client.idleLimitMs) return false;
    return this.mesh === undefined || client.context === this.mesh.context();
  }

  /** Keeps a connection whose answer is complete. */
  put(client: HttpClient, now: number, idleLimitMs: number): void {
    client.user = undefined;
    client.served++;
    client.answered = false;
    client.idleSince = now;
    client.idleLimitMs = idleLimitMs;
    const { closed, peerEnded } = client.connection;
    if (closed || peerEnded || this.#retired) client.connection.close();
    else {
      this.#room.kept++;
      this.#idle.push(client);
      this.#room.kick();
    }
  }

  /** A connection is gone. */
  forget(client: HttpClient): void {
    const at = this.#idle.indexOf(client);
    if (at === -1) return;
    this.#room.kept--;
    this.#idle.splice(at, 1);
  }

  get oldest(): number {
    return this.#idle[0]?.idleSince ?? Number.POSITIVE_INFINITY;
  }

  dropOldest(): void {
    const [client] = this.#idle;
    if (client === undefined) return;
    this.forget(client);
    client.connection.destroy();
  }

  /** Closes what has been idle for too long. */
  sweep(now: number): void {
    for (const client of [...this.#idle]) {
      if (!this.#usable(client, now)) {
        this.forget(client);
        client.connection.close();
      }
    }
  }

  /** It is not chosen any more. */
  retire(): void {
    this.#retired = true;
    this.#room.keepers.delete(this);
    this.closeIdle();
  }

  closeIdle(): void {
    for (const client of [...this.#idle]) {
      this.forget(client);
      client.connection.close();
    }
  }

  /** Opens a connection for HTTP/1.1; answers `user` later, exactly once. */
  connect(timeoutMs: number, user: ConnectUser, ticket: number): void {
    const failed = (error: Error) => user.onConnectFailed(error, ticket);
    this.#room.claim({
      reuse: () => {
        const client = this.take(this.#now());
        if (client !== undefined) user.onConnected(client, ticket);
        return client !== undefined;
      },
      granted: () => {
        const context = this.mesh?.context();
        const opened = (c: Connection) => {
          const client = new HttpClient(c, this, context);
          user.onConnected(client, ticket);
          return client;
        };
        this.#dial("http/1.1", timeoutMs, opened, failed);
      },
      refused: () => failed(noRoom()),
    });
  }

  /**
   * Opens a raw connection; towards a proxy with `alpn`, its identity verified. `preface` is sent
   * before everything else, and only to who is no proxy. A `MeshError` says that it was not tried.
   */
  dial(
    alpn: string,
    timeoutMs: number,
    opened: (c: Connection) => ConnectionHandler,
    failed: (error: Error) => void,
    preface?: Uint8Array,
  ): void {
    this.#room.claim({
      reuse: () => false,
      granted: () => this.#dial(alpn, timeoutMs, opened, failed, preface),
      refused: () => failed(noRoom()),
    });
  }

  #dial(
    alpn: string,
    timeoutMs: number,
    opened: (c: Connection) => ConnectionHandler,
    failed: (error: Error) => void,
    preface?: Uint8Array,
  ): void {
    const { mesh, host, port } = this;
    const { release, another } = this.#room;
    const to = { host, port, timeoutMs, freed: release };
    const fail = (error: Error) => {
      this.avoid();
      failed(error);
    };
    if (mesh === undefined) {
      const plain = (c: Connection) => {
        this.worked();
        return opened(c);
      };
      const first = preface === undefined ? to : { ...to, preface };
      if (this.#outside === undefined) dial(first, plain, fail);
      else this.#outside.dial({ ...first, alpn, another }, plain, fail);
      return;
    }
    const context = mesh.context();
    if (context === undefined) {
      release();
      queueMicrotask(() => failed(new Error("this workload has no certificate yet")));
      return;
    }
    const verified = (c: Connection) => {
      const uris = c.tls?.uris ?? [];
      if (uris.length !== 1 || uris[0] !== mesh.identity) {
        c.destroy();
        fail(new Error(`the peer is ${uris.join(" ") || "nobody"}, not ${mesh.identity}`));
        return NOBODY;
      }
      return opened(c);
    };
    const tls = { context, serverName: mesh.sni, alpn };
    dial({ ...to, tls }, verified, fail);
  }

  /** Lets others go first for a while, longer each time. Failures meanwhile are the same one. */
  avoid(): void {
    const now = this.#now();
    if (this.#failures > 0 && now < this.#avoidUntil) return;
    const doublings = Math.min(this.#failures, AVOID_DOUBLINGS_MAX);
    this.#failures++;
    this.#avoidUntil = now + AVOID_MS * 2 ** doublings;
  }
}

function noRoom(): MeshError {
  return new MeshError("overflow", "too many connections of this proxy");
}

const NOBODY: ConnectionHandler = { data() {}, end() {}, drain() {}, close() {} };
