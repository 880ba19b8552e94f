/** Relays in front of a listener, which say in a PROXY header for whom they speak. */
import { BlockList, isIP } from "node:net";
import { parseRange } from "../std/address-range.ts";
import type { Connection, ConnectionHandler } from "./connection.ts";
import { plainAddress, readProxyHeader } from "./proxy-protocol.ts";

/** The whole header must be there within this time: a relay sends it at once. */
const HEADER_TIMEOUT_MS = 10_000;

/** Whose headers are believed. Their connections must begin with one; others must not. */
export class Relays {
  readonly #list = new BlockList();
  readonly #refused: (why: HeaderFault) => void;
  readonly timeoutMs: number;

  /** @throws Error when one of `ranges` is no address and no `ADDRESS/BITS`. */
  constructor(
    ranges: readonly string[],
    refused: (why: HeaderFault) => void,
    timeoutMs = HEADER_TIMEOUT_MS,
  ) {
    this.#refused = refused;
    this.timeoutMs = timeoutMs;
    for (const range of ranges) {
      const parsed = parseRange(range);
      if (parsed === undefined) throw new Error(`${range} is no range of addresses`);
      this.#list.addSubnet(parsed.address, parsed.bits, parsed.family);
    }
  }

  includes(address: string): boolean {
    const plain = plainAddress(address);
    return this.#list.check(plain, isIP(plain) === 6 ? "ipv6" : "ipv4");
  }

  refused(why: HeaderFault): void {
    this.#refused(why);
  }
}

export type HeaderFault = "malformed" | "timeout";

/** Has a relay's connection until its header is read. */
export class AwaitHeader implements ConnectionHandler {
  readonly #relays: Relays;
  readonly #accept: (c: Connection) => ConnectionHandler;
  readonly #timer: ReturnType<typeof setTimeout>;
  #bytes: Uint8Array = new Uint8Array(0);

  constructor(c: Connection, relays: Relays, accept: (c: Connection) => ConnectionHandler) {
    this.#relays = relays;
    this.#accept = accept;
    this.#timer = setTimeout(() => this.#refuse(c, "timeout"), relays.timeoutMs);
  }

  data(c: Connection, chunk: Uint8Array): void {
    const bytes = this.#bytes.length === 0 ? chunk : Buffer.concat([this.#bytes, chunk]);
    const header = readProxyHeader(bytes);
    if (header.kind === "malformed") {
      this.#refuse(c, "malformed");
      return;
    }
    if (header.kind === "more") {
      this.#bytes = bytes;
      return;
    }
    clearTimeout(this.#timer);
    c.announced = header.ends;
    c.handler = this.#accept(c);
    if (bytes.length > header.length) c.redeliver(bytes.subarray(header.length));
  }

  #refuse(c: Connection, why: HeaderFault): void {
    clearTimeout(this.#timer);
    c.destroy();
    this.#relays.refused(why);
  }

  /** A connection that ends before it says anything is a health check, and harmless. */
  end(c: Connection): void {
    clearTimeout(this.#timer);
    c.close();
  }

  drain(): void {}

  close(): void {
    clearTimeout(this.#timer);
  }
}
