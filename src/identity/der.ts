/** The little of DER (ITU-T X.690) that certificates and requests need, written and read. */

/** One element: tag, its contents, and the bytes it was read from. */
export interface DerElement {
  readonly tag: number;
  readonly body: Buffer;
  /** Tag, length and contents. */
  readonly whole: Buffer;
}

export const DER = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  oid: 0x06,
  utf8: 0x0c,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const;

/** Encodes one element. */
export function derEncode(tag: number, ...contents: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(contents);
  if (body.length < 0x80) return Buffer.concat([Buffer.from([tag, body.length]), body]);
  const length: number[] = [];
  for (let rest = body.length; rest > 0; rest = Math.floor(rest / 256)) length.unshift(rest % 256);
  return Buffer.concat([Buffer.from([tag, 0x80 | length.length, ...length]), body]);
}

/** Object identifier in dotted form. */
export function derOid(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split(".").map(Number);
  const bytes: number[] = [];
  for (const arc of [first * 40 + second, ...rest]) {
    const septets = [arc & 0x7f];
    for (let left = arc >>> 7; left > 0; left >>>= 7) septets.unshift((left & 0x7f) | 0x80);
    bytes.push(...septets);
  }
  return derEncode(DER.oid, Buffer.from(bytes));
}

/** The elements that fill `bytes` exactly; undefined when the encoding is not DER. */
export function derRead(bytes: Buffer): DerElement[] | undefined {
  const elements: DerElement[] = [];
  let at = 0;
  while (at < bytes.length) {
    const tag = bytes[at] ?? 0;
    let length = bytes[at + 1] ?? 0xff;
    let start = at + 2;
    if ((tag & 0x1f) === 0x1f) return undefined;
    if (length >= 0x80) {
      const size = length & 0x7f;
      if (size === 0 || size > 3 || start + size > bytes.length) return undefined;
      length = bytes.readUIntBE(start, size);
      start += size;
      // DER wants the shortest form.
      if (length < 0x80 || (size > 1 && length < 2 ** (8 * (size - 1)))) return undefined;
    }
    const end = start + length;
    if (end > bytes.length) return undefined;
    elements.push({ tag, body: bytes.subarray(start, end), whole: bytes.subarray(at, end) });
    at = end;
  }
  return elements;
}

/** The elements inside one element of that tag; undefined when it is something else. */
export function derInside(element: DerElement | undefined, tag: number): DerElement[] | undefined {
  return element?.tag === tag ? derRead(element.body) : undefined;
}
