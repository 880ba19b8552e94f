/**
 * Reads the server name and the offered protocols out of a TLS ClientHello before any handshake,
 * so that a name nobody serves is answered by an alert alone (RFC 8446 section 4.1.2, RFC 6066
 * section 3, RFC 7301 section 3.1). Sans-I/O; never throws.
 */
export type Hello =
  | { readonly kind: "more" }
  | { readonly kind: "malformed" }
  | { readonly kind: "hello"; readonly serverName: string; readonly alpn: readonly string[] };

/** A ClientHello with post-quantum shares is under 2 KiB; nobody honest needs more than this. */
export const HELLO_BYTES_MAX = 16 * 1024;

/**
 * Records it may come in. It is looked at whenever bytes arrive, which must stay cheap however
 * small the pieces are that somebody sends.
 */
const RECORDS_MAX = 64;

const MORE: Hello = { kind: "more" };
const MALFORMED: Hello = { kind: "malformed" };
const HANDSHAKE = 22;
const CLIENT_HELLO = 1;
const SERVER_NAME = 0;
const ALPN = 16;

export function readClientHello(bytes: Uint8Array): Hello {
  try {
    const body = handshakeBody(bytes);
    return body instanceof Uint8Array ? parseHello(new Cursor(body)) : body;
  } catch {
    return MALFORMED;
  }
}

/** The handshake message, its records joined. */
function handshakeBody(bytes: Uint8Array): Uint8Array | Hello {
  const parts: Uint8Array[] = [];
  let have = 0;
  for (let at = 0; parts.length < RECORDS_MAX; ) {
    if (bytes.length > at && bytes[at] !== HANDSHAKE) return MALFORMED;
    if (bytes.length < at + 5) return bytes.length > HELLO_BYTES_MAX ? MALFORMED : MORE;
    if (bytes[at + 1] !== 3) return MALFORMED;
    const length = (bytes[at + 3]! << 8) | bytes[at + 4]!;
    if (length === 0 || length > HELLO_BYTES_MAX) return MALFORMED;
    if (bytes.length < at + 5 + length) return MORE;
    parts.push(bytes.subarray(at + 5, at + 5 + length));
    have += length;
    at += 5 + length;
    if (parts[0]![0] !== CLIENT_HELLO) return MALFORMED;
    if (have < 4) continue;
    const need = lengthOf(parts);
    if (need > HELLO_BYTES_MAX) return MALFORMED;
    if (have >= need + 4) return Buffer.concat(parts).subarray(4, need + 4);
  }
  return MALFORMED;
}

/** The length that the message states in its bytes 1 to 3; `parts` hold at least four bytes. */
function lengthOf(parts: readonly Uint8Array[]): number {
  const start: number[] = [];
  for (const part of parts) {
    for (const byte of part.subarray(0, 4 - start.length)) start.push(byte);
    if (start.length === 4) break;
  }
  return (start[1]! << 16) | (start[2]! << 8) | start[3]!;
}

function parseHello(hello: Cursor): Hello {
  hello.skip(2 + 32);
  hello.skip(hello.u8());
  hello.skip(hello.u16());
  hello.skip(hello.u8());
  let serverName = "";
  let alpn: readonly string[] = [];
  if (hello.left === 0) return { kind: "hello", serverName, alpn };
  const extensions = hello.take(hello.u16());
  // Others may take the first of two, or stop earlier: then they would serve another name.
  if (hello.left > 0) return MALFORMED;
  const seen = new Set<number>();
  while (extensions.left > 0) {
    const type = extensions.u16();
    const body = extensions.take(extensions.u16());
    if (seen.has(type)) return MALFORMED;
    seen.add(type);
    if (type === SERVER_NAME) serverName = parseServerName(body);
    else if (type === ALPN) alpn = parseAlpn(body);
  }
  return { kind: "hello", serverName, alpn };
}

function parseServerName(body: Cursor): string {
  const list = body.take(body.u16());
  const names: string[] = [];
  while (list.left > 0) {
    const type = list.u8();
    const name = list.take(list.u16()).text().toLowerCase();
    if (type === 0) names.push(name);
  }
  if (names.length > 1 || body.left > 0) throw new RangeError("more than one name");
  return names[0] ?? "";
}

function parseAlpn(body: Cursor): string[] {
  const list = body.take(body.u16());
  const names: string[] = [];
  while (list.left > 0) names.push(list.take(list.u8()).text());
  return names;
}

/** Walks bytes; throws RangeError past the end. */
class Cursor {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  skip(count: number): void {
    if (count > this.left) throw new RangeError("past the end");
    this.#at += count;
  }

  u8(): number {
    this.skip(1);
    return this.#bytes[this.#at - 1]!;
  }

  u16(): number {
    return (this.u8() << 8) | this.u8();
  }

  take(count: number): Cursor {
    const start = this.#at;
    this.skip(count);
    return new Cursor(this.#bytes.subarray(start, start + count));
  }

  text(): string {
    return Buffer.from(this.#bytes).toString("latin1");
  }
}
