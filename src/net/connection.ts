/**
 * One TCP or TLS connection. Hides what Bun's sockets leave to their user: partial writes are
 * queued and kept in order, a half close waits for the queue, bytes that still arrive after
 * `pause()` are held, and an exception in a handler costs this connection only.
 */
import { countCallbackError } from "./boundary.ts";
import type { BunHandlers, BunSocket } from "./bun-socket.ts";
import type { Ends } from "./proxy-protocol.ts";
import type { Source } from "./shares.ts";

/**
 * Callbacks of a connection. `close` comes last and exactly once; it comes without `end` when our
 * own FIN went out before the peer's.
 */
export interface ConnectionHandler {
  /** `chunk` may be retained. */
  data(c: Connection, chunk: Uint8Array): void;
  /** The peer sent FIN; our direction is still open. */
  end(c: Connection): void;
  /** Everything queued has been handed to the kernel. */
  drain(c: Connection): void;
  close(c: Connection, error: Error | undefined): void;
}

/** What the handshake proved about the peer. */
export interface TlsPeer {
  /** The SNI name; "" if none. */
  readonly serverName: string;
  /** The agreed protocol; "" if none. */
  readonly alpn: string;
  /** The peer presented a certificate that chains to the context's roots. */
  readonly authorized: boolean;
  /** URI names of the peer's certificate, in its order. */
  readonly uris: readonly string[];
  readonly resumed: boolean;
}

/** How long a closed connection still reads what the peer had under way, milliseconds. */
const LINGER_MS = 1000;

/**
 * How long a closed connection may hold bytes of which its peer takes none, milliseconds. A slow
 * reader makes room in the kernel's buffer by megabytes, so this is no measure of a second.
 */
const UNREAD_MS = 300_000;

/** Heads and bodies up to this size are joined here, so that a message costs one write. */
const SCRATCH_BYTES = 128 * 1024;
const scratch = Buffer.allocUnsafeSlow(SCRATCH_BYTES) as Latin1Buffer;

/** Node's own fast paths, which its types leave out. */
type Latin1Buffer = Buffer & { latin1Write(text: string, offset: number): number };

const IGNORE: ConnectionHandler = { data() {}, end() {}, drain() {}, close() {} };

/** Stands in until the connection has its socket. */
const UNATTACHED: BunSocket<Connection> = {
  data: undefined as unknown as Connection,
  remoteAddress: undefined,
  remotePort: undefined,
  localAddress: undefined,
  localPort: undefined,
  write: () => -1,
  end() {},
  shutdown() {},
  terminate() {},
  pause() {},
  resume() {},
  setKeepAlive: () => false,
};

/** Of all connections of the process. */
let pending = 0;

/** Bytes that this process holds because their receivers have not taken them yet, at most. */
export function pendingBytes(): number {
  return pending;
}

type Finish = "none" | "end" | "close";

export class Connection {
  handler: ConnectionHandler = IGNORE;
  /** Only for this folder: called once, when its descriptor is free again. */
  onFreed: (() => void) | undefined;
  /** Whose place it takes at our door; undefined: it did not come by one. */
  source: Source | undefined;
  /** Between whom it was before a relay that is believed passed it on; undefined = no such relay. */
  announced: Ends | undefined;
  #socket: BunSocket<Connection> = UNATTACHED;
  #tls: TlsPeer | undefined;
  #queue: Uint8Array[] = [];
  #queued = 0;
  #finish: Finish = "none";
  /** Our FIN has been sent. */
  #shut = false;
  #peerEnded = false;
  #closed = false;
  #broken = false;
  #destroyed = false;
  #paused = false;
  /** Size of what arrived last and is held: a handler that pauses has kept some of it. */
  #arrived = 0;
  /** Bytes of which the handler says that it keeps them. */
  #kept = 0;
  /** Received, and counted as pending. */
  #unused = 0;
  #delivering = false;
  #held: Uint8Array[] | undefined;
  #heldEnd = false;
  #unread: ReturnType<typeof setTimeout> | undefined;
  #linger: ReturnType<typeof setTimeout> | undefined;

  /** Only for this folder: `socket` uses `Connection.handlers` and carries this connection. */
  attach(socket: BunSocket<Connection>): void {
    this.#socket = socket;
  }

  /** Only for this folder: the handshake is over. */
  secured(peer: TlsPeer): void {
    this.#tls = peer;
  }

  /** Only for this folder: it has no descriptor, or none any more. */
  freed(): void {
    const { onFreed } = this;
    this.onFreed = undefined;
    onFreed?.();
  }

  /** Undefined on a plaintext connection. */
  get tls(): TlsPeer | undefined {
    return this.#tls;
  }

  get queuedBytes(): number {
    return this.#queued;
  }

  /** Bytes held because of this connection: queued, kept, and arrived before it was paused. */
  get pendingBytes(): number {
    return this.#queued + this.#unused;
  }

  /** How many bytes of the peer's its handler keeps until more of them are there. */
  set kept(bytes: number) {
    this.#kept = this.#closed ? 0 : bytes;
    this.#count();
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** A write found the connection gone already: its bytes went nowhere. `close` follows. */
  get broken(): boolean {
    return this.#broken;
  }

  /** We reset it: whatever it was about did not come to its end. */
  get destroyed(): boolean {
    return this.#destroyed;
  }

  get peerEnded(): boolean {
    return this.#peerEnded;
  }

  get remoteAddress(): string {
    return this.#socket.remoteAddress ?? "";
  }

  get remotePort(): number {
    return this.#socket.remotePort ?? 0;
  }

  get localAddress(): string {
    return this.#socket.localAddress ?? "";
  }

  get localPort(): number {
    return this.#socket.localPort ?? 0;
  }

  /** Between whom it is: what was announced, else its own addresses. */
  get ends(): Ends {
    return (
      this.announced ?? {
        source: { address: this.remoteAddress, port: this.remotePort },
        destination: { address: this.localAddress, port: this.localPort },
      }
    );
  }

  /**
   * Sends `bytes`, which must not change afterwards. False: some are queued, wait for `drain`.
   * On a closed connection the bytes are dropped.
   */
  write(bytes: Uint8Array): boolean {
    if (this.#closed || this.#finish !== "none") return true;
    if (this.#queued > 0) return this.#enqueue(bytes);
    const sent = this.#socket.write(bytes);
    if (sent === bytes.length || sent < 0) return this.#took(sent);
    return this.#enqueue(sent === 0 ? bytes : bytes.subarray(sent));
  }

  /** Sends latin1 `head`, then `body`, in one write where that is cheap. See `write`. */
  writeHead(head: string, body: Uint8Array | undefined): boolean {
    return this.writeFramed(head, body, "");
  }

  /** Sends latin1 `before`, `body` and latin1 `after`, in one write where that is cheap. */
  writeFramed(before: string, body: Uint8Array | undefined, after: string): boolean {
    if (this.#closed || this.#finish !== "none") return true;
    const bodyEnd = before.length + (body === undefined ? 0 : body.length);
    const size = bodyEnd + after.length;
    if (this.#queued > 0 || size > SCRATCH_BYTES) {
      if (before !== "") this.write(Buffer.from(before, "latin1"));
      if (body !== undefined) this.write(body);
      if (after !== "") this.write(Buffer.from(after, "latin1"));
      return this.#queued === 0;
    }
    if (before !== "") scratch.latin1Write(before, 0);
    if (body !== undefined) scratch.set(body, before.length);
    if (after !== "") scratch.latin1Write(after, bodyEnd);
    const sent = this.#socket.write(scratch, 0, size);
    if (sent === size || sent < 0) return this.#took(sent);
    return this.#enqueue(Uint8Array.prototype.slice.call(scratch, sent, size));
  }

  /** Flushes, then sends FIN; the peer may go on sending. */
  end(): void {
    if (this.#closed || this.#finish !== "none") return;
    this.#finish = "end";
    if (this.#queued === 0) this.#flushed();
  }

  /** Flushes, then closes both ways. The handler hears only `close` from now on. */
  close(): void {
    if (this.#closed || this.#finish === "close") return;
    this.#finish = "close";
    this.#held = undefined;
    if (this.#queued === 0) this.#flushed();
    else {
      // A peer that takes nothing is not listened to either.
      this.pause();
      this.#awaitFlush();
    }
  }

  /** Gives a peer up that takes nothing of what is left to send. */
  #awaitFlush(): void {
    const left = this.#queued;
    this.#unread = setTimeout(() => {
      if (this.#queued >= left) this.destroy();
      else this.#awaitFlush();
    }, UNREAD_MS);
  }

  /** Drops the queue and sends RST. */
  destroy(): void {
    if (this.#closed) return;
    this.#destroyed = true;
    this.#finish = "close";
    this.#held = undefined;
    this.#dropQueue();
    this.#socket.terminate();
  }

  /** Stops `data`; while paused a peer's FIN is not reported, a reset is. */
  pause(): void {
    if (this.#paused || this.#closed) return;
    this.#paused = true;
    this.#count();
    this.#socket.pause();
  }

  resume(): void {
    if (!this.#paused || this.#closed) return;
    this.#paused = false;
    this.#forgetArrived();
    if (this.#delivering) return;
    this.#deliverHeld(false);
    if (!this.#paused && !this.#closed) this.#socket.resume();
  }

  /** Gives the handler, a new one, what its predecessor got and did not use. */
  redeliver(bytes: Uint8Array): void {
    if (this.#paused || (this.#held !== undefined && this.#held.length > 0)) {
      this.#held ??= [];
      this.#held.unshift(bytes);
    } else this.handler.data(this, bytes);
  }

  /** Hands over what arrived while paused; `all` ignores a handler that pauses again. */
  #deliverHeld(all: boolean): void {
    this.#delivering = true;
    try {
      while (this.#held !== undefined && this.#held.length > 0 && (all || !this.#paused)) {
        if (!this.#paused) this.#arrived = this.#held.reduce((sum, { length }) => sum + length, 0);
        this.handler.data(this, this.#held.shift()!);
      }
      if (this.#heldEnd && (all || !this.#paused)) {
        this.#heldEnd = false;
        this.handler.end(this);
      }
    } finally {
      this.#delivering = false;
    }
  }

  #took(sent: number): true {
    if (sent < 0) this.#broken = true;
    return true;
  }

  #enqueue(bytes: Uint8Array): boolean {
    this.#queue.push(bytes);
    this.#queued += bytes.length;
    pending += bytes.length;
    return false;
  }

  #flushed(): void {
    clearTimeout(this.#unread);
    if (this.#finish === "close" && this.#peerEnded) {
      this.#socket.end();
      return;
    }
    if (!this.#shut) {
      this.#shut = true;
      this.#socket.shutdown();
    }
    if (this.#finish === "close" && this.#paused) {
      this.#paused = false;
      this.#forgetArrived();
      this.#socket.resume();
    }
    if (this.#finish === "close" && this.#linger === undefined && !this.#closed) {
      // Closing with unread bytes would reset the connection and lose what we just sent.
      this.#linger = setTimeout(() => this.#socket.end(), LINGER_MS);
    }
  }

  #onData(chunk: Uint8Array): void {
    if (this.#finish === "close") return;
    if (this.#paused || (this.#held !== undefined && this.#held.length > 0)) {
      this.#held ??= [];
      this.#held.push(chunk);
      this.#arrived += chunk.length;
      this.#count();
      return;
    }
    this.#arrived = chunk.length;
    this.handler.data(this, chunk);
  }

  #onEnd(): void {
    this.#peerEnded = true;
    // A reset that a write met first comes as an end: it must not pass for one.
    if (this.#broken) return;
    if (this.#finish === "close") {
      if (this.#queued === 0) this.#socket.end();
      return;
    }
    if (this.#paused || (this.#held !== undefined && this.#held.length > 0)) {
      this.#heldEnd = true;
      return;
    }
    this.handler.end(this);
  }

  #onDrain(): void {
    if (this.#queued > 0) {
      let done = 0;
      for (; done < this.#queue.length; done++) {
        const bytes = this.#queue[done]!;
        const sent = this.#socket.write(bytes);
        if (sent < 0) {
          this.#broken = true;
          return;
        }
        this.#queued -= sent;
        pending -= sent;
        if (sent < bytes.length) {
          this.#queue[done] = bytes.subarray(sent);
          break;
        }
      }
      this.#queue.splice(0, done);
      if (this.#queued > 0) return;
    }
    if (this.#finish !== "none") this.#flushed();
    if (this.#finish !== "close") this.handler.drain(this);
  }

  #onClose(cause: Error | undefined): void {
    if (this.#closed) return;
    this.freed();
    const error = cause ?? (this.#broken ? new Error("the peer reset the connection") : undefined);
    if (error === undefined && this.#finish !== "close") {
      try {
        this.#deliverHeld(true);
      } catch (thrown) {
        this.#destroyed = true;
        countCallbackError("data", thrown);
      }
    }
    this.#closed = true;
    clearTimeout(this.#linger);
    clearTimeout(this.#unread);
    this.#dropQueue();
    this.#kept = 0;
    this.#forgetArrived();
    this.#held = undefined;
    this.handler.close(this, error);
  }

  #forgetArrived(): void {
    this.#arrived = 0;
    this.#count();
  }

  /** A handler that pauses keeps what arrived last: those bytes are the same. */
  #count(): void {
    const unused = Math.max(this.#kept, this.#paused ? this.#arrived : 0);
    if (unused === this.#unused) return;
    pending += unused - this.#unused;
    this.#unused = unused;
  }

  #dropQueue(): void {
    pending -= this.#queued;
    this.#queue = [];
    this.#queued = 0;
  }

  #failed(site: string, error: unknown): void {
    countCallbackError(site, error);
    this.destroy();
  }

  /** Shared by every connection: nothing is allocated per socket but the connection itself. */
  static readonly handlers: BunHandlers<Connection> = {
    data(socket, chunk) {
      const c = socket.data;
      try {
        c.#onData(chunk);
      } catch (error) {
        c.#failed("data", error);
      }
    },
    end(socket) {
      const c = socket.data;
      try {
        c.#onEnd();
      } catch (error) {
        c.#failed("end", error);
      }
    },
    drain(socket) {
      const c = socket.data;
      try {
        c.#onDrain();
      } catch (error) {
        c.#failed("drain", error);
      }
    },
    close(socket, error) {
      const c = socket.data;
      try {
        c.#onClose(error);
      } catch (cause) {
        c.#failed("close", cause);
      }
    },
    error(socket, error) {
      socket.data.#failed("socket", error);
    },
  };
}
