/**
 * The PROXY protocol (HAProxy, versions 1 and 2): a header before everything else on a connection
 * that says between whom it was before somebody relayed it. Reading and writing, no I/O.
 */
import { isIP } from "node:net";

export interface End {
  /** IPv4 or IPv6, never IPv4 inside IPv6. */
  readonly address: string;
  readonly port: number;
}

export interface Ends {
  readonly source: End;
  readonly destination: End;
}

export type ProxyVersion = "v1" | "v2";

/** `length`: bytes of the header. `ends`: undefined where it names nobody. */
export type ProxyHeader =
  | { readonly kind: "more" }
  | { readonly kind: "malformed" }
  | { readonly kind: "header"; readonly length: number; readonly ends: Ends | undefined };

const MORE: ProxyHeader = { kind: "more" };
const MALFORMED: ProxyHeader = { kind: "malformed" };

/** The longest line of version 1, its CRLF included. */
const LINE_MAX = 107;
const LINE_START = Buffer.from("PROXY ", "latin1");
const SIGNATURE = Buffer.from("\r\n\r\n\0\r\nQUIT\n", "latin1");
const FIXED_BYTES = 16;
/** The format's limit is 64 KiB; addresses and a certificate's name are far below this. */
export const PROXY_HEADER_MAX = 4096;

/** Bytes of both addresses and ports, by address family; others are not there. */
const ADDRESS_BYTES = [0, 12, 36, 216];
const INET = 1;
const INET6 = 2;
const STREAM = 1;

/** Reads the header at the start of `bytes`, everything received so far. */
export function readProxyHeader(bytes: Uint8Array): ProxyHeader {
  if (starts(bytes, SIGNATURE)) return readBinary(bytes);
  return starts(bytes, LINE_START) ? readLine(bytes) : MALFORMED;
}

/** As far as both go. */
function starts(bytes: Uint8Array, with_: Uint8Array): boolean {
  const end = Math.min(bytes.length, with_.length);
  for (let i = 0; i < end; i++) if (bytes[i] !== with_[i]) return false;
  return true;
}

function readLine(bytes: Uint8Array): ProxyHeader {
  const seen = bytes.subarray(0, LINE_MAX);
  const cr = seen.indexOf(13);
  if (cr === -1) return bytes.length < LINE_MAX ? MORE : MALFORMED;
  if (cr + 1 >= LINE_MAX) return MALFORMED;
  if (cr + 1 >= bytes.length) return MORE;
  if (bytes[cr + 1] !== 10) return MALFORMED;
  const length = cr + 2;
  const words = Buffer.from(seen.subarray(LINE_START.length, cr)).toString("latin1").split(" ");
  // What follows is not ours to understand.
  if (words[0] === "UNKNOWN") return { kind: "header", length, ends: undefined };
  const family = words[0] === "TCP4" ? 4 : words[0] === "TCP6" ? 6 : 0;
  const [, from = "", to = "", fromPort = "", toPort = ""] = words;
  const named = [from, to].every((address) => isIP(address) === family && !address.includes("%"));
  const numbered = [fromPort, toPort].every(isPort);
  if (family === 0 || words.length !== 5 || !named || !numbered) return MALFORMED;
  const source = { address: plainAddress(from), port: Number(fromPort) };
  const destination = { address: plainAddress(to), port: Number(toPort) };
  return { kind: "header", length, ends: { source, destination } };
}

function isPort(text: string): boolean {
  return /^(?:0|[1-9]\d{0,4})$/.test(text) && Number(text) <= 65535;
}

function readBinary(bytes: Uint8Array): ProxyHeader {
  const version = bytes[12];
  if (version !== undefined && version !== 0x20 && version !== 0x21) return MALFORMED;
  if (bytes.length < FIXED_BYTES) return MORE;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = FIXED_BYTES + view.getUint16(14);
  if (length > PROXY_HEADER_MAX) return MALFORMED;
  // LOCAL: the relay speaks for itself, as in a health check.
  const local = version === 0x20;
  const family = bytes[13]! >> 4;
  const transport = bytes[13]! & 15;
  const addresses = ADDRESS_BYTES[family];
  if (!local && (addresses === undefined || transport > 2)) return MALFORMED;
  if (!local && addresses !== undefined && FIXED_BYTES + addresses > length) return MALFORMED;
  if (bytes.length < length) return MORE;
  if (local || family === 0) return { kind: "header", length, ends: undefined };
  if (!fits(view, FIXED_BYTES + addresses!, length)) return MALFORMED;
  const inet = transport === STREAM && (family === INET || family === INET6);
  return { kind: "header", length, ends: inet ? endsIn(bytes, view, family) : undefined };
}

/** Whether extensions (type, length, value) fill what follows the addresses exactly. */
function fits(view: DataView, start: number, end: number): boolean {
  let at = start;
  while (at + 3 <= end) at += 3 + view.getUint16(at + 1);
  return at === end;
}

function endsIn(bytes: Uint8Array, view: DataView, family: number): Ends {
  const size = family === INET ? 4 : 16;
  const ports = FIXED_BYTES + 2 * size;
  const end = (n: number): End => {
    const at = FIXED_BYTES + n * size;
    const text = textOf(bytes.subarray(at, at + size));
    return { address: text, port: view.getUint16(ports + 2 * n) };
  };
  return { source: end(0), destination: end(1) };
}

/**
 * The header for a connection between `ends`; one that names nobody where they are undefined or no
 * addresses. Of two families the smaller one travels inside the larger.
 */
export function writeProxyHeader(version: ProxyVersion, ends: Ends | undefined): Uint8Array {
  const source = ends === undefined ? undefined : packed(ends.source.address);
  const destination = ends === undefined ? undefined : packed(ends.destination.address);
  if (ends === undefined || source === undefined || destination === undefined) {
    if (version === "v1") return Buffer.from("PROXY UNKNOWN\r\n", "latin1");
    return Buffer.concat([SIGNATURE, Uint8Array.of(0x21, 0, 0, 0)]);
  }
  const inet = source.length === 4 && destination.length === 4;
  const pair = inet ? [source, destination] : [widened(source), widened(destination)];
  const ports = [ends.source.port, ends.destination.port];
  if (version === "v1") {
    const texts = inet ? pair.map(textOf) : pair.map(groupsOf);
    const line = `PROXY ${inet ? "TCP4" : "TCP6"} ${texts.join(" ")} ${ports.join(" ")}\r\n`;
    return Buffer.from(line, "latin1");
  }
  const rest = Buffer.alloc(4);
  ports.forEach((port, i) => {
    rest.writeUInt16BE(port, 2 * i);
  });
  const fixed = Uint8Array.of(0x21, ((inet ? INET : INET6) << 4) | STREAM, 0, inet ? 12 : 36);
  return Buffer.concat([SIGNATURE, fixed, ...pair, rest]);
}

const MAPPED = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff);

/** IPv4 that came inside IPv6 is IPv4; IPv6 in its shortest form (RFC 5952). */
export function plainAddress(address: string): string {
  const bytes = packed(address);
  return bytes === undefined ? address : textOf(bytes);
}

function widened(bytes: Uint8Array): Uint8Array {
  return bytes.length === 16 ? bytes : Buffer.concat([MAPPED, bytes]);
}

/** 4 or 16 bytes; undefined for what is no address. */
function packed(address: string): Uint8Array | undefined {
  const family = isIP(address);
  if (family === 0 || address.includes("%")) return undefined;
  if (family === 4) return Uint8Array.from(address.split("."), Number);
  // Groups of an address that ends in dots: URL gives them all as hexadecimal.
  const [left = "", right] = hostOf(address).split("::");
  const before = groupsIn(left);
  const after = groupsIn(right ?? "");
  const zeros = Array<number>(8 - before.length - after.length).fill(0);
  const groups = [...before, ...zeros, ...after];
  const bytes = Uint8Array.from(groups.flatMap((group) => [group >> 8, group & 255]));
  return starts(bytes, MAPPED) ? bytes.subarray(12) : bytes;
}

function groupsIn(text: string): number[] {
  return text === "" ? [] : text.split(":").map((group) => Number.parseInt(group, 16));
}

function textOf(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join(".");
  return starts(bytes, MAPPED) ? bytes.subarray(12).join(".") : hostOf(groupsOf(bytes));
}

function groupsOf(bytes: Uint8Array): string {
  const groups = Array.from({ length: 8 }, (_, i) => (bytes[2 * i]! << 8) | bytes[2 * i + 1]!);
  return groups.map((group) => group.toString(16)).join(":");
}

function hostOf(address: string): string {
  return new URL(`http://[${address}]`).hostname.slice(1, -1);
}
