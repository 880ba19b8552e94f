/** Opening connections, in plaintext or with TLS that verifies chain and name. */
import { countCallbackError } from "./boundary.ts";
import {
  type BunHandlers,
  type BunTlsHandlers,
  type BunTlsOptions,
  bunConnect,
  SILENCE_MS,
  type Silent,
  upgradeClient,
} from "./bun-socket.ts";
import { Connection, type ConnectionHandler } from "./connection.ts";
import { type OutsideCheck, objectionTo } from "./outside-tls.ts";
import { alpnWire, peerOf, type TlsContext } from "./tls.ts";

export interface DialTls {
  readonly context: TlsContext;
  /** Sent as SNI and, unless `outside` says otherwise, verified. "" = the host's address. */
  readonly serverName: string;
  /** The one protocol offered; a proxy of the mesh that does not agree is refused. "" = none. */
  readonly alpn: string;
  /** Set where the server is no proxy of the mesh: it need not know about protocols. */
  readonly outside?: OutsideCheck;
}

export interface DialOptions {
  readonly host: string;
  readonly port: number;
  /** Source address; absent = the kernel's choice. */
  readonly localAddress?: string;
  readonly tls?: DialTls;
  /** Sent before everything else, TLS included: some hundred bytes. */
  readonly preface?: Uint8Array;
  /** Name resolution, connect and handshake together, milliseconds. */
  readonly timeoutMs: number;
  /** Called once, when the descriptor is free again; that can be long after `failed`. */
  readonly freed?: () => void;
}

/**
 * Calls exactly one of `opened` and `failed`, later. A peer that refuses our certificate may still
 * look opened (TLS 1.3 finishes on the client first): then `end` comes before any byte.
 */
export function dial(
  o: DialOptions,
  opened: (c: Connection) => ConnectionHandler,
  failed: (error: Error) => void,
): void {
  const c = new Connection();
  const attempt = new Attempt(o, c, opened, failed);
  c.handler = attempt;
  c.onFreed = o.freed;
  const connect = () =>
    bunConnect<Connection>({
      hostname: o.host,
      port: o.port,
      ...(o.localAddress === undefined ? {} : { localAddress: o.localAddress }),
      allowHalfOpen: true,
      data: c,
      ...waysOf(o),
    });
  // What cannot be dialled at all, as port 0, is thrown at once: it is a failure like any other.
  Promise.try(connect).catch((error: Error) => {
    attempt.fail(error);
    c.freed();
  });
}

function waysOf({ tls, preface }: DialOptions) {
  if (tls === undefined) return { socket: PLAIN };
  return preface === undefined ? { socket: SECURE, tls: nativeOf(tls) } : { socket: PREFACED };
}

function nativeOf(tls: DialTls): BunTlsOptions {
  return {
    secureContext: tls.context.native,
    ...(tls.serverName === "" ? {} : { serverName: tls.serverName }),
    rejectUnauthorized: tls.outside === undefined,
    ...(tls.alpn === "" ? {} : { ALPNProtocols: wireOf(tls.alpn) }),
  };
}

const wires = new Map<string, Uint8Array>();

/** Protocol names are a handful of constants. */
function wireOf(alpn: string): Uint8Array {
  let wire = wires.get(alpn);
  if (wire === undefined) {
    wire = alpnWire([alpn]);
    wires.set(alpn, wire);
  }
  return wire;
}

const PLAIN: BunHandlers<Connection> = {
  ...Connection.handlers,
  open(socket) {
    const c = socket.data;
    c.attach(socket);
    socket.setKeepAlive(true, SILENCE_MS);
    if (!(c.handler instanceof Attempt)) return;
    const { preface } = c.handler.options;
    if (preface !== undefined) c.write(preface);
    c.handler.succeed();
  },
  connectError(socket, error) {
    const { handler } = socket.data;
    if (handler instanceof Attempt) handler.fail(error);
  },
};

const SECURE: BunTlsHandlers<Connection> = {
  ...Connection.handlers,
  open(socket) {
    const c = socket.data;
    c.attach(socket);
    socket.setKeepAlive(true, SILENCE_MS);
    // Connected after the time was up: nobody waits for a handshake any more.
    if (c.handler instanceof Attempt && c.handler.settled) c.destroy();
  },
  handshake(socket, ok, error) {
    const c = socket.data;
    c.attach(socket);
    if (!(c.handler instanceof Attempt)) return;
    const { tls } = c.handler.options;
    const peer = peerOf(socket, tls?.serverName ?? "");
    if (tls?.outside !== undefined) {
      const objection =
        peer.alpn !== "" && peer.alpn !== tls.alpn
          ? `it speaks ${peer.alpn}`
          : objectionTo(socket, ok, error, tls.outside);
      if (objection === undefined) {
        c.secured(peer);
        c.handler.succeed();
      } else c.handler.fail(new Error(objection));
    } else if (!ok || !peer.authorized) {
      c.handler.fail(error ?? new Error("the peer's certificate is not accepted"));
    } else if (tls !== undefined && tls.alpn !== peer.alpn) {
      c.handler.fail(new Error(`the peer does not speak ${tls.alpn}`));
    } else {
      c.secured(peer);
      c.handler.succeed();
    }
  },
  connectError(socket, error) {
    const { handler } = socket.data;
    if (handler instanceof Attempt) handler.fail(error);
  },
};

/** Plaintext until the preface is out; what happens after that, TLS's own socket tells. */
const PREFACED: Silent<Connection> = {
  open(socket) {
    const c = socket.data;
    const attempt = c.handler;
    if (!(attempt instanceof Attempt)) return;
    const { tls, preface } = attempt.options;
    if (tls === undefined || preface === undefined || attempt.settled) {
      socket.terminate();
      return;
    }
    if (socket.write(preface) === preface.length) {
      upgradeClient<Connection>(socket, { data: c, tls: nativeOf(tls), socket: SECURE });
      return;
    }
    socket.terminate();
    attempt.fail(new Error("the peer closed the connection before TLS"));
  },
  end() {},
  drain() {},
  close(socket) {
    socket.data.freed();
  },
  error(socket, error) {
    countCallbackError("raw", error);
    socket.terminate();
    if (socket.data.handler instanceof Attempt) socket.data.handler.fail(error);
  },
  connectError(socket, error) {
    const { handler } = socket.data;
    if (handler instanceof Attempt) handler.fail(error);
  },
};

/** A connection that is not open yet. */
class Attempt implements ConnectionHandler {
  readonly options: DialOptions;
  readonly #connection: Connection;
  readonly #opened: (c: Connection) => ConnectionHandler;
  readonly #failed: (error: Error) => void;
  readonly #timer: ReturnType<typeof setTimeout>;
  #settled = false;

  constructor(
    options: DialOptions,
    connection: Connection,
    opened: (c: Connection) => ConnectionHandler,
    failed: (error: Error) => void,
  ) {
    this.options = options;
    this.#connection = connection;
    this.#opened = opened;
    this.#failed = failed;
    this.#timer = setTimeout(() => {
      this.fail(new Error(`no connection within ${options.timeoutMs} ms`));
    }, options.timeoutMs);
  }

  get settled(): boolean {
    return this.#settled;
  }

  succeed(): void {
    if (this.#settled) {
      // Too late: the caller has been told that it failed.
      this.#connection.destroy();
      return;
    }
    this.#settled = true;
    clearTimeout(this.#timer);
    try {
      this.#connection.handler = this.#opened(this.#connection);
    } catch (error) {
      countCallbackError("opened", error);
      this.#connection.destroy();
    }
  }

  fail(error: Error): void {
    const first = !this.#settled;
    this.#settled = true;
    clearTimeout(this.#timer);
    // May call `close`, whose reason must not take the place of this one.
    this.#connection.destroy();
    if (!first) return;
    try {
      this.#failed(error);
    } catch (cause) {
      countCallbackError("failed", cause);
    }
  }

  data(c: Connection): void {
    c.destroy();
  }

  end(): void {
    this.fail(new Error("the peer closed the connection during the handshake"));
  }

  drain(): void {}

  close(_c: Connection, error: Error | undefined): void {
    this.fail(error ?? new Error("the peer closed the connection during the handshake"));
  }
}
