/** The rules of the PROXY protocol's specification, and what must be refused. */
import { describe, expect, test } from "bun:test";
import {
  type Ends,
  PROXY_HEADER_MAX,
  readProxyHeader,
  writeProxyHeader,
} from "./proxy-protocol.ts";

const SIGNATURE = [13, 10, 13, 10, 0, 13, 10, 81, 85, 73, 84, 10];

function text(line: string): Uint8Array {
  return Buffer.from(line, "latin1");
}

function binary(command: number, family: number, rest: readonly number[], length = rest.length) {
  return Uint8Array.of(...SIGNATURE, command, family, length >> 8, length & 255, ...rest);
}

/** 1.2.3.4:4660 to 5.6.7.8:443. */
const INET = [1, 2, 3, 4, 5, 6, 7, 8, 0x12, 0x34, 0x01, 0xbb];
const INET_ENDS: Ends = {
  source: { address: "1.2.3.4", port: 4660 },
  destination: { address: "5.6.7.8", port: 443 },
};

function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state * 1664525 + 1013904223) >>> 0;
    return Math.floor((state / 0x100000000) * below);
  };
}

/** The same from the whole and from every beginning, with anything behind it. */
function read(bytes: Uint8Array) {
  const whole = readProxyHeader(bytes);
  if (whole.kind === "header") {
    for (let cut = 0; cut < whole.length; cut++) {
      expect(readProxyHeader(bytes.subarray(0, cut))).toEqual({ kind: "more" });
    }
    const more = Buffer.concat([Buffer.from("xx"), bytes, Buffer.alloc(300, 65)]).subarray(2);
    expect(readProxyHeader(more)).toEqual(whole);
  }
  if (whole.kind === "malformed") {
    // Once malformed, more bytes do not mend it.
    let bad = false;
    for (let cut = 0; cut <= bytes.length; cut++) {
      const part = readProxyHeader(bytes.subarray(0, cut)).kind;
      if (bad) expect(part).toBe("malformed");
      bad ||= part === "malformed";
    }
  }
  return whole;
}

describe("version 1", () => {
  test("names addresses and ports", () => {
    const bytes = text("PROXY TCP4 1.2.3.4 5.6.7.8 4660 443\r\n");
    expect(read(bytes)).toEqual({ kind: "header", length: bytes.length, ends: INET_ENDS });
    const six = text("PROXY TCP6 2001:DB8:0:0:0:0:0:1 ::1 65535 0\r\n");
    expect(read(six)).toMatchObject({
      length: six.length,
      ends: {
        source: { address: "2001:db8::1", port: 65535 },
        destination: { address: "::1", port: 0 },
      },
    });
    const mapped = text("PROXY TCP6 ::ffff:1.2.3.4 ::ffff:506:708 4660 443\r\n");
    expect(read(mapped)).toMatchObject({ ends: INET_ENDS });
  });

  test("UNKNOWN names nobody, whatever follows, within the longest line", () => {
    const longest = `PROXY UNKNOWN ${"f".repeat(91)}\r\n`;
    expect(longest).toHaveLength(107);
    for (const line of ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN a  b\nc\r\n", longest]) {
      expect(read(text(line))).toEqual({ kind: "header", length: line.length, ends: undefined });
    }
    expect(read(text(`PROXY UNKNOWN ${"f".repeat(92)}\r\n`)).kind).toBe("malformed");
    expect(readProxyHeader(text(`PROXY UNKNOWN ${"f".repeat(93)}`)).kind).toBe("malformed");
  });

  const REFUSED = [
    ...["GET / HTTP/1.1\r\n", "proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n", " PROXY UNKNOWN\r\n", "\r\nx"],
    ...["PROXY\r\n", "PROXY \r\n", "PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n", "PROXY UNKNOWNX\r\n"],
    ...["PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n"],
    ...["PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n", "PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n"],
    ...["PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n", "PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n"],
    ...["PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n", "PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n"],
    ...["PROXY TCP4 1.2.3.04 5.6.7.8 1 2\r\n", "PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n"],
    ...["PROXY TCP4 ::1 ::2 1 2\r\n", "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n"],
    ...["PROXY TCP4 a.example b.example 1 2\r\n", "PROXY TCP6 fe80::1%lo ::2 1 2\r\n"],
    ...["PROXY TCP6 1::2::3 ::2 1 2\r\n", "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\rX"],
    "PROXY TCP4 1.2.3.4\t5.6.7.8 1 2\r\n",
  ];
  for (const line of REFUSED) {
    test(`refused: ${JSON.stringify(line)}`, () => {
      expect(read(text(line))).toEqual({ kind: "malformed" });
    });
  }
});

describe("version 2", () => {
  test("names addresses and ports, extensions skipped", () => {
    expect(read(binary(0x21, 0x11, INET))).toEqual({
      ...{ kind: "header", length: 28, ends: INET_ENDS },
    });
    const extended = [...INET, 0x04, 0, 0, 0x02, 0, 3, 1, 2, 3];
    expect(read(binary(0x21, 0x11, extended))).toMatchObject({ length: 37, ends: INET_ENDS });
    const six = [0x20, 1, 0xd, 0xb8, ...Array<number>(11).fill(0), 1, ...Array<number>(15).fill(0)];
    expect(read(binary(0x21, 0x21, [...six, 1, 0, 1, 0, 2]))).toMatchObject({
      ends: {
        source: { address: "2001:db8::1", port: 1 },
        destination: { address: "::1", port: 2 },
      },
    });
  });

  test("LOCAL, unspecified, unix and datagrams name nobody", () => {
    const cases = [
      binary(0x20, 0x00, []),
      binary(0x20, 0xff, [1, 2, 3]),
      binary(0x20, 0x11, INET),
      binary(0x21, 0x00, []),
      binary(0x21, 0x00, [9, 9, 9, 9, 9]),
      binary(0x21, 0x12, INET),
      binary(0x21, 0x31, Array<number>(216).fill(97)),
      binary(0x21, 0x32, Array<number>(216).fill(0)),
    ];
    for (const bytes of cases) {
      expect(read(bytes)).toEqual({ kind: "header", length: bytes.length, ends: undefined });
    }
  });

  const REFUSED: Readonly<Record<string, Uint8Array>> = {
    "another version": binary(0x11, 0x11, INET),
    "another command": binary(0x22, 0x11, INET),
    "another family": binary(0x21, 0x41, Array<number>(216).fill(0)),
    "another transport": binary(0x21, 0x13, INET),
    "a length below that of IPv4": binary(0x21, 0x11, INET.slice(1)),
    "a length below that of IPv6": binary(0x21, 0x21, Array<number>(35).fill(0)),
    "a length below that of unix": binary(0x21, 0x31, Array<number>(215).fill(0)),
    "no length": binary(0x21, 0x11, []),
    "an extension longer than the header": binary(0x21, 0x11, [...INET, 4, 0, 9, 1, 2]),
    "an extension without a length": binary(0x21, 0x11, [...INET, 4, 0]),
    "more than we read": binary(0x21, 0x11, INET, PROXY_HEADER_MAX - 15),
    "a signature that is almost one": Uint8Array.of(...SIGNATURE.slice(0, 11), 11, 0x21, 0x11),
  };
  for (const [what, bytes] of Object.entries(REFUSED)) {
    test(`refused: ${what}`, () => expect(read(bytes)).toEqual({ kind: "malformed" }));
  }
});

describe("writing", () => {
  test("what is written is read again, for any addresses", () => {
    const pick = random(7);
    const address = () => {
      if (pick(2) === 0) return [0, 0, 0, 0].map(() => pick(256)).join(".");
      const groups = Array.from({ length: 8 }, () => pick(3) * pick(0x8000));
      return new URL(
        `http://[1${groups
          .map((g) => g.toString(16))
          .join(":")
          .slice(1)}]`,
      ).hostname.slice(1, -1);
    };
    for (let i = 0; i < 500; i++) {
      const ends: Ends = {
        source: { address: address(), port: pick(65536) },
        destination: { address: address(), port: pick(65536) },
      };
      for (const version of ["v1", "v2"] as const) {
        const bytes = writeProxyHeader(version, ends);
        expect(readProxyHeader(bytes)).toEqual({ kind: "header", length: bytes.length, ends });
      }
    }
  });

  test("bytes as in the specification", () => {
    expect(writeProxyHeader("v2", INET_ENDS)).toEqual(Buffer.from(binary(0x21, 0x11, INET)));
    const line = writeProxyHeader("v1", INET_ENDS);
    expect(Buffer.from(line).toString()).toBe("PROXY TCP4 1.2.3.4 5.6.7.8 4660 443\r\n");
    const ones = { address: Array(8).fill("ffff").join(":"), port: 65535 };
    const longest = writeProxyHeader("v1", { source: ones, destination: ones });
    expect(longest.length).toBe(104);
  });

  test("nobody is named where an address is none", () => {
    const unknown = { ...INET_ENDS, source: { address: "", port: 0 } };
    for (const ends of [undefined, unknown]) {
      expect(Buffer.from(writeProxyHeader("v1", ends)).toString()).toBe("PROXY UNKNOWN\r\n");
      expect(readProxyHeader(writeProxyHeader("v2", ends))).toEqual({
        ...{ kind: "header", length: 16, ends: undefined },
      });
    }
  });
});

test("no bytes make it throw or wait for more than a header", () => {
  const pick = random(11);
  const seeds = [
    writeProxyHeader("v1", INET_ENDS),
    binary(0x21, 0x11, [...INET, 4, 0, 3, 1, 2, 3]),
    binary(0x21, 0x31, Array<number>(220).fill(1)),
  ];
  for (let i = 0; i < 3000; i++) {
    const bytes = Buffer.from(seeds[pick(seeds.length)]!);
    for (let n = pick(4); n >= 0; n--) bytes[pick(bytes.length)] = pick(256);
    const filled = Buffer.concat([bytes, Buffer.alloc(PROXY_HEADER_MAX, pick(256))]);
    const verdict = readProxyHeader(filled);
    expect(verdict.kind).not.toBe("more");
    if (verdict.kind === "header") expect(verdict.length).toBeLessThanOrEqual(PROXY_HEADER_MAX);
  }
});
