/** Accepting connections, in plaintext or with TLS whose context is chosen per connection. */
import { adopt } from "./adopt.ts";
import { ALERTS, TLS_HANDSHAKE } from "./alert.ts";
import { countCallbackError, guarded } from "./boundary.ts";
import {
  type BunListener,
  type BunSocket,
  type BunTlsHandlers,
  type BunTlsSocket,
  bunListen,
  SILENCE_MS,
  type Silent,
  upgradeServer,
} from "./bun-socket.ts";
import { HELLO_BYTES_MAX, readClientHello } from "./client-hello.ts";
import { Connection, type ConnectionHandler, type TlsPeer } from "./connection.ts";
import { AwaitHeader, type Relays } from "./relays.ts";
import type { Door } from "./room.ts";
import type { Source } from "./shares.ts";
import { alpnWire, peerOf, type TlsContext } from "./tls.ts";

export interface Listener {
  readonly port: number;
  /** Accepts no more; connections live on. */
  stop(): void;
  /** Accepts no more and closes every connection. */
  closeAll(): void;
}

export interface ListenOptions {
  readonly host: string;
  /** 0 = any free port. */
  readonly port: number;
  /** Who may come in; absent: everybody, until the descriptors are used up. */
  readonly admission?: Door;
  /** What all callers count as there; absent: each as its address. */
  readonly source?: string;
  readonly accept: Accept;
}

export interface ListenPlainOptions extends ListenOptions {
  /** Sent to callers for whom there is no room, as far as they take it; absent: a reset alone. */
  readonly full?: Uint8Array;
  /** Who begins connections with a PROXY header; absent: nobody. */
  readonly relays?: Relays;
}

/** @throws Error with `code` EADDRINUSE, EACCES or EADDRNOTAVAIL. */
export function listen(o: ListenPlainOptions): Listener {
  const { admission } = o;
  const listener = bunListen<Connection>({
    hostname: o.host,
    port: o.port,
    allowHalfOpen: true,
    socket: {
      ...Connection.handlers,
      open(socket) {
        const c = new Connection();
        c.attach(socket);
        socket.data = c;
        if (admission !== undefined) {
          const source = admission.enter(o.source ?? c.remoteAddress);
          if (source === undefined) {
            turnAway(socket, o.full);
            return;
          }
          takePlace(c, admission, source);
        }
        socket.setKeepAlive(true, SILENCE_MS);
        if (o.relays?.includes(c.remoteAddress) === true) {
          c.handler = new AwaitHeader(c, o.relays, o.accept);
        } else accepted(c, o.accept);
      },
    },
  });
  return listenerOf(listener);
}

/**
 * Left in the kernel's queue instead, a caller for whom no descriptor is left would keep the event
 * loop spinning.
 */
function turnAway(socket: BunSocket<unknown>, answer: Uint8Array | undefined): void {
  if (answer === undefined) socket.terminate();
  else {
    socket.write(answer);
    socket.end();
  }
}

function takePlace(c: Connection, door: Door, source: Source): void {
  c.source = source;
  c.onFreed = () => {
    if (c.source !== undefined) door.leave(c.source);
  };
}

/** Why a TLS client was turned away before it became a connection. */
export type RefusedWhy =
  | "not_tls"
  | "malformed_hello"
  | "unknown_server_name"
  | "no_protocol"
  | "unverified"
  | "handshake_failed"
  | "timeout";

export interface ListenTlsOptions extends ListenOptions {
  /** The context for a server name (lower case, "" if none); undefined = refused by an alert. */
  context(serverName: string): TlsContext | undefined;
  readonly requestCert: "required" | "optional";
  /** Protocols in order of preference; [] = none is demanded. */
  readonly alpn: readonly string[];
  /** From accept to the end of the handshake; absent: 10 s. */
  readonly handshakeTimeoutMs?: number;
  /**
   * Who serves a caller that brings no TLS of ours, judged by all it has sent so far: undefined =
   * nobody; "more" = it cannot be told yet. Absent: nobody ever.
   */
  plaintext?(first: Uint8Array): Accept | "more" | undefined;
  refused?(why: RefusedWhy, serverName: string | undefined): void;
}

export type Accept = (c: Connection) => ConnectionHandler;

const HANDSHAKE_TIMEOUT_MS = 10_000;

/**
 * Accepts TLS 1.3. The context is asked for at every connection, so a rotated certificate needs no
 * new listener. @throws as `listen`.
 */
export function listenTls(o: ListenTlsOptions): Listener {
  const live = new Set<Connection>();
  const shared: Shared = {
    options: o,
    wires: new Map(o.alpn.map((name) => [name, alpnWire([name])])),
    handlers: {
      ...Connection.handlers,
      ...TLS_STEPS,
      close(socket, error) {
        live.delete(socket.data);
        Connection.handlers.close(socket, error);
      },
    },
    live,
  };
  const listener = bunListen<Handshake | undefined>({
    hostname: o.host,
    port: o.port,
    allowHalfOpen: true,
    socket: {
      open(raw) {
        const source = o.admission?.enter(o.source ?? raw.remoteAddress ?? "");
        if (o.admission !== undefined && source === undefined) {
          raw.data = undefined;
          turnAway(raw, undefined);
          return;
        }
        raw.setKeepAlive(true, SILENCE_MS);
        raw.data = new Handshake(shared, raw as FdSocket<Handshake>, source);
      },
      data(raw, chunk) {
        raw.data?.hello(chunk);
      },
      end(raw) {
        raw.data?.rawEnded();
      },
      drain() {},
      close(raw) {
        raw.data?.rawClosed();
      },
      error(raw, error) {
        countCallbackError("hello", error);
        raw.terminate();
      },
    },
  });
  return {
    ...listenerOf(listener),
    closeAll() {
      listener.stop(true);
      for (const c of live) c.destroy();
    },
  };
}

type FdSocket<Data> = BunSocket<Data> & { readonly fd: number };

interface Shared {
  readonly options: ListenTlsOptions;
  readonly wires: ReadonlyMap<string, Uint8Array>;
  readonly handlers: BunTlsHandlers<Connection>;
  /** Connections that have left the listener's own sockets. */
  readonly live: Set<Connection>;
}

/** What a raw socket does once TLS has taken over its bytes: nothing. */
const SILENT: Silent<Connection> = {
  end() {},
  drain() {},
  close() {},
  error(_socket, error) {
    countCallbackError("raw", error);
  },
};

const TLS_STEPS: Pick<BunTlsHandlers<Connection>, "open" | "handshake"> = {
  open(socket) {
    socket.data.attach(socket);
  },
  handshake(socket, ok) {
    const c = socket.data;
    c.attach(socket);
    if (c.handler instanceof Handshake) c.handler.finish(c, socket, ok);
  },
};

/** A client from accept to the end of its handshake. The raw socket keeps it; it ignores the rest. */
class Handshake implements ConnectionHandler {
  readonly #shared: Shared;
  readonly #raw: FdSocket<Handshake>;
  readonly #source: Source | undefined;
  readonly #timer: ReturnType<typeof setTimeout>;
  #bytes: Uint8Array | undefined;
  #serverName: string | undefined;
  #left = false;
  #secure: BunTlsSocket<Connection> | undefined;
  #settled = false;

  /** `source`: whose place it has, if there is a door. */
  constructor(shared: Shared, raw: FdSocket<Handshake>, source: Source | undefined) {
    this.#shared = shared;
    this.#raw = raw;
    this.#source = source;
    this.#timer = setTimeout(() => {
      this.#refuse("timeout");
    }, shared.options.handshakeTimeoutMs ?? HANDSHAKE_TIMEOUT_MS);
  }

  /** Bytes of the raw socket; after the upgrade they are ciphertext that TLS has its own copy of. */
  hello(chunk: Uint8Array): void {
    if (this.#left || this.#settled) return;
    try {
      const bytes = this.#bytes === undefined ? chunk : Buffer.concat([this.#bytes, chunk]);
      this.#peek(bytes);
    } catch (error) {
      countCallbackError("hello", error);
      this.#refuse("malformed_hello");
    }
  }

  #peek(bytes: Uint8Array): void {
    if (bytes[0] !== TLS_HANDSHAKE) {
      this.#peekPlaintext(bytes, () => this.#refuse("not_tls"));
      return;
    }
    const o = this.#shared.options;
    const parsed = readClientHello(bytes);
    if (parsed.kind === "more" && bytes.length <= HELLO_BYTES_MAX) {
      this.#bytes = bytes;
      return;
    }
    if (parsed.kind !== "hello") {
      this.#refuse("malformed_hello", ALERTS.decodeError);
      return;
    }
    this.#serverName = parsed.serverName;
    const context = o.context(parsed.serverName);
    const alpn = o.alpn.find((name) => parsed.alpn.includes(name));
    if (context === undefined) {
      const unknown = () => this.#refuse("unknown_server_name", ALERTS.unrecognizedName);
      this.#peekPlaintext(bytes, unknown);
    } else if (alpn === undefined && o.alpn.length > 0) {
      this.#refuse("no_protocol", ALERTS.noApplicationProtocol);
    } else {
      this.#upgrade(bytes, context, alpn === undefined ? undefined : this.#shared.wires.get(alpn));
    }
  }

  /** Of a caller without TLS, or whose TLS is not for us: opaque bytes like others. */
  #peekPlaintext(bytes: Uint8Array, refuse: () => void): void {
    const accept = this.#shared.options.plaintext?.(bytes);
    if (accept === undefined || (accept === "more" && bytes.length > HELLO_BYTES_MAX)) refuse();
    else if (accept === "more") this.#bytes = bytes;
    else this.#leavePlain(bytes, accept);
  }

  #leavePlain(bytes: Uint8Array, accept: Accept): void {
    this.#settle();
    this.#leaveListener(this.#shared.handlers, (c, socket) => {
      c.attach(socket);
      accepted(c, accept);
      guarded("accept", c, () => c.redeliver(bytes));
    });
  }

  #upgrade(bytes: Uint8Array, context: TlsContext, alpn: Uint8Array | undefined): void {
    this.#leaveListener(SILENT, (c, raw) => {
      this.#secure = upgradeServer<Connection>(raw, {
        isServer: true,
        initialData: bytes,
        data: c,
        tls: {
          secureContext: context.native,
          requestCert: true,
          rejectUnauthorized: this.#shared.options.requestCert === "required",
          ...(alpn === undefined ? {} : { ALPNProtocols: alpn }),
        },
        socket: this.#shared.handlers,
      });
    });
  }

  /** Takes the socket out of the listener, whose handlers all its sockets share. */
  #leaveListener(
    handlers: Silent<Connection>,
    left: (c: Connection, socket: BunSocket<Connection>) => void,
  ): void {
    this.#left = true;
    this.#bytes = undefined;
    const c = new Connection();
    c.handler = this;
    const { admission } = this.#shared.options;
    if (admission !== undefined && this.#source) takePlace(c, admission, this.#source);
    const lost = () => {
      this.#shared.live.delete(c);
      c.freed();
      this.close();
    };
    const open = (socket: BunSocket<Connection>) => {
      const destroy = () => {
        socket.terminate();
        lost();
      };
      this.#shared.live.add(c);
      guarded("hello", { destroy }, () => left(c, socket));
    };
    adopt(this.#raw, c, { ...handlers, open }, lost);
  }

  /** The handshake is over; `ok` alone proves nothing about the peer. */
  finish(c: Connection, socket: BunTlsSocket<Connection>, ok: boolean): void {
    if (this.#settled) return;
    const peer = peerOf(socket, this.#serverName ?? "");
    const why = ok ? this.#objection(peer, socket.getServername()) : "handshake_failed";
    if (why !== undefined) {
      this.#refuse(why);
      return;
    }
    this.#settle();
    c.secured(peer);
    accepted(c, this.#shared.options.accept);
  }

  #objection(peer: TlsPeer, seenName: string | undefined): RefusedWhy | undefined {
    const o = this.#shared.options;
    if (o.requestCert === "required" && !peer.authorized) return "unverified";
    // What we peeked at chose the context; TLS must have seen the same.
    if (peer.serverName !== "" && seenName?.toLowerCase() !== peer.serverName) {
      return "handshake_failed";
    }
    return o.alpn.length > 0 && !o.alpn.includes(peer.alpn) ? "no_protocol" : undefined;
  }

  rawEnded(): void {
    if (this.#settled) return;
    if (!this.#left) {
      this.#settle();
      this.#raw.end();
    }
  }

  /** The socket it came on is gone; after the upgrade another one has taken its place. */
  rawClosed(): void {
    this.rawEnded();
    if (!this.#left && this.#source) this.#shared.options.admission?.leave(this.#source);
  }

  #refuse(why: RefusedWhy, alert?: Uint8Array): void {
    if (this.#settled) return;
    this.#settle();
    if (alert !== undefined) this.#raw.write(alert);
    // After the upgrade the raw socket is only a shadow of the TLS one.
    (this.#secure ?? this.#raw).end();
    this.#shared.options.refused?.(why, this.#serverName);
  }

  #settle(): void {
    this.#settled = true;
    clearTimeout(this.#timer);
  }

  data(c: Connection): void {
    // Nothing may pass before the peer is known.
    c.destroy();
  }

  end(c: Connection): void {
    c.destroy();
  }

  drain(): void {}

  close(): void {
    if (this.#settled) return;
    this.#settle();
    this.#shared.options.refused?.("handshake_failed", this.#serverName);
  }
}

function accepted(c: Connection, accept: Accept): void {
  try {
    c.handler = accept(c);
  } catch (error) {
    countCallbackError("accept", error);
    c.destroy();
  }
}

function listenerOf(listener: BunListener): Listener {
  return {
    port: listener.port,
    stop: () => listener.stop(false),
    closeAll: () => listener.stop(true),
  };
}
