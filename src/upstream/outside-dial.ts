/**
 * Dialling a server that has no proxy: its name is resolved, its addresses are tried in turn, and
 * TLS is begun where the policy says so.
 */
import { isIP } from "node:net";
import { guarded } from "../net/boundary.ts";
import type { Connection, ConnectionHandler } from "../net/connection.ts";
import { type DialTls, dial } from "../net/dial.ts";
import type { HostNames } from "../net/host-names.ts";
import { outsideContext } from "../net/outside-tls.ts";
import type { TlsDocument } from "../snapshot/document.ts";

export interface OutsideAddress {
  /** IP address or host name. */
  readonly host: string;
  readonly port: number;
  /** Resolution, every connect and every handshake together, milliseconds. */
  readonly timeoutMs: number;
  /** What the connection is for. */
  readonly alpn: string;
  /** Called for each descriptor once it is free again; one is counted already. */
  readonly freed: () => void;
  /** Counts another descriptor. */
  readonly another: () => void;
  /** Sent before everything else, TLS included. */
  readonly preface?: Uint8Array;
}

type Opened = (c: Connection) => ConnectionHandler;
type Failed = (error: Error) => void;

export interface OutsideOptions {
  /** Undefined: plaintext. */
  readonly tls: TlsDocument | undefined;
  /** The protocol offered for opaque bytes; "" = none. */
  readonly opaque: "" | "h2";
  readonly names: HostNames;
  /** Monotonic milliseconds. */
  readonly now: () => number;
}

/** How one server is dialled. */
export class OutsideDial {
  readonly #options: OutsideOptions;
  /** The address to begin with: connections go to each of them in turn. */
  #turn = 0;

  constructor(options: OutsideOptions) {
    this.#options = options;
  }

  /** Whether TLS is begun. */
  get secure(): boolean {
    return this.#options.tls !== undefined;
  }

  /** Calls exactly one of `opened` and `failed`, later. */
  dial(to: OutsideAddress, opened: Opened, failed: Failed): void {
    let tls: DialTls | undefined;
    try {
      if (this.#options.tls !== undefined) tls = this.#dialTls(to, this.#options.tls);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      to.freed();
      queueMicrotask(() => failed(new Error(`the policy's certificates are unusable: ${why}`)));
      return;
    }
    if (isIP(to.host) === 0) this.#resolve(to, tls, opened, failed);
    else dial({ ...to, ...(tls === undefined ? {} : { tls }) }, opened, failed);
  }

  #resolve(to: OutsideAddress, tls: DialTls | undefined, opened: Opened, failed: Failed): void {
    const end = this.#options.now() + to.timeoutMs;
    let waiting = true;
    const fail = (why: string) => {
      to.freed();
      guarded("failed", undefined, () => failed(new Error(why)));
    };
    const timer = setTimeout(() => {
      waiting = false;
      fail(`the name was not resolved within ${to.timeoutMs} ms`);
    }, to.timeoutMs);
    this.#options.names.find(to.host, to.port).then((found) => {
      if (!waiting) return;
      clearTimeout(timer);
      if (found.kind === "refused") {
        fail(found.why);
        return;
      }
      const { addresses } = found;
      const first = this.#turn++;
      const order = addresses.map((_, i) => addresses[(first + i) % addresses.length]!);
      this.#tryEach(order, { ...to, ...(tls === undefined ? {} : { tls }) }, end, opened, failed);
    });
  }

  #tryEach(
    addresses: readonly string[],
    to: Omit<OutsideAddress, "alpn"> & { readonly tls?: DialTls },
    end: number,
    opened: Opened,
    failed: Failed,
  ): void {
    const [host, ...others] = addresses;
    const timeoutMs = Math.max(1, end - this.#options.now());
    dial({ ...to, host: host!, timeoutMs }, opened, (error) => {
      if (others.length === 0 || this.#options.now() >= end) failed(error);
      else {
        to.another();
        this.#tryEach(others, to, end, opened, failed);
      }
    });
  }

  /** @throws Error when the policy's certificates cannot be used. */
  #dialTls(to: OutsideAddress, tls: TlsDocument): DialTls {
    const serverName = tls.sni ?? (isIP(to.host) === 0 ? to.host : "");
    const names = tls.names.length > 0 ? tls.names : [serverName === "" ? to.host : serverName];
    return {
      context: outsideContext(tls, this.#options.now()),
      serverName,
      // The other names are those of protocols between proxies.
      alpn: to.alpn === "http/1.1" ? to.alpn : this.#options.opaque,
      outside: { verify: tls.verify, names },
    };
  }
}
