/**
 * The part of Bun's sockets that weft relies on. Some of it is absent from Bun's own types
 * (`upgradeTLS` as a server, `secureContext`, numeric ALPN lists), so it is declared once here and
 * held to by tests; the version of Bun is pinned.
 */
import type { SecureContext } from "node:tls";

export interface BunSocket<Data> {
  data: Data;
  readonly remoteAddress: string | undefined;
  readonly remotePort: number | undefined;
  readonly localAddress: string | undefined;
  readonly localPort: number | undefined;
  /** Bytes the kernel took: 0 when full or before the TLS handshake, -1 when closed. */
  write(bytes: Uint8Array, offset?: number, length?: number): number;
  /** Full close at once: whatever was not written is lost. */
  end(): void;
  /** Half close: sends FIN, stays readable. */
  shutdown(): void;
  /** Sends RST. */
  terminate(): void;
  pause(): void;
  resume(): void;
  /** Probes after `delayMs` of silence; ten of them unanswered, a second apart, are the end. */
  setKeepAlive(enable: boolean, delayMs: number): boolean;
}

/**
 * After so much silence a peer is asked whether it is still there. A host that lost its power says
 * no goodbye, and without this its connections, and whoever waits on them, would stay for ever.
 */
export const SILENCE_MS = 60_000;

export interface BunTlsSocket<Data> extends BunSocket<Data> {
  /** The only proof of a verified peer: `handshake` reports success for refused ones too. */
  readonly authorized: boolean;
  /** False when none was agreed. */
  readonly alpnProtocol: string | false | null;
  getServername(): string | undefined;
  getPeerCertificate(): { readonly subjectaltname?: string; readonly raw?: Buffer } | undefined;
  isSessionReused(): boolean;
}

export interface BunHandlers<Data, S extends BunSocket<Data> = BunSocket<Data>> {
  open?(socket: S): void;
  data(socket: S, chunk: Uint8Array): void;
  end(socket: S): void;
  drain(socket: S): void;
  close(socket: S, error?: Error): void;
  error(socket: S, error: Error): void;
  connectError?(socket: S, error: Error): void;
}

export interface BunTlsHandlers<Data> extends BunHandlers<Data, BunTlsSocket<Data>> {
  handshake(socket: BunTlsSocket<Data>, ok: boolean, error: Error | null): void;
}

export interface BunTlsOptions {
  readonly secureContext: NativeContext;
  readonly serverName?: string;
  readonly requestCert?: boolean;
  readonly rejectUnauthorized: boolean;
  /** Wire format: length byte, name, …. */
  readonly ALPNProtocols?: Uint8Array;
}

export type NativeContext = SecureContext["context"];

export interface BunListener {
  readonly port: number;
  readonly hostname: string;
  stop(closeActive?: boolean): void;
}

interface ClientUpgradeOptions<Data> {
  readonly data: Data;
  readonly tls: BunTlsOptions;
  readonly socket: BunTlsHandlers<Data>;
}

interface UpgradeOptions<Data> extends ClientUpgradeOptions<Data> {
  readonly isServer: true;
  /** Bytes already read from the raw socket; without them the handshake hangs. */
  readonly initialData: Uint8Array;
}

/** Turns an accepted socket into the server side of a TLS session. */
export function upgradeServer<Data>(
  socket: BunSocket<unknown>,
  options: UpgradeOptions<Data>,
): BunTlsSocket<Data> {
  return upgrade(socket, options);
}

/** Begins a TLS session as a client on a connected socket. */
export function upgradeClient<Data>(
  socket: BunSocket<unknown>,
  options: ClientUpgradeOptions<Data>,
): BunTlsSocket<Data> {
  return upgrade(socket, options);
}

function upgrade<Data>(
  socket: BunSocket<unknown>,
  options: ClientUpgradeOptions<Data>,
): BunTlsSocket<Data> {
  const upgradable = socket as unknown as {
    upgradeTLS(o: ClientUpgradeOptions<Data>): readonly [unknown, BunTlsSocket<Data>];
  };
  return upgradable.upgradeTLS(options)[1];
}

interface ListenOptions<Data> {
  readonly hostname: string;
  readonly port: number;
  readonly allowHalfOpen: true;
  readonly socket: BunHandlers<Data>;
}

/** @throws Error with `code` EADDRINUSE, EACCES or EADDRNOTAVAIL. */
export function bunListen<Data>(options: ListenOptions<Data>): BunListener {
  const listenNative = Bun.listen as unknown as (o: ListenOptions<Data>) => BunListener;
  return listenNative(options);
}

interface ConnectOptions<Data> {
  readonly hostname: string;
  readonly port: number;
  readonly localAddress?: string;
  readonly allowHalfOpen: true;
  readonly data: Data;
  readonly tls?: BunTlsOptions;
  readonly socket: BunHandlers<Data> | BunTlsHandlers<Data> | Silent<Data>;
}

/** Outcome arrives at the handlers; the promise rejects in addition to `connectError`. */
export function bunConnect<Data>(options: ConnectOptions<Data>): Promise<unknown> {
  const connectNative = Bun.connect as unknown as (o: ConnectOptions<Data>) => Promise<unknown>;
  return connectNative(options);
}

/** Handlers without `data`: Bun then makes no copy of what arrives. */
export type Silent<Data> = Omit<BunHandlers<Data>, "data">;

interface AdoptOptions<Data> {
  /** A connected socket, owned by the new one from here on. */
  readonly fd: number;
  readonly allowHalfOpen: true;
  readonly data: Data;
  readonly socket: Silent<Data>;
}

/** A socket around a descriptor; `open` is called at once. */
export function bunAdopt<Data>(options: AdoptOptions<Data>): Promise<unknown> {
  const connectNative = Bun.connect as unknown as (o: AdoptOptions<Data>) => Promise<unknown>;
  return connectNative(options);
}
