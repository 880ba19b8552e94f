import { expect, test } from "bun:test";
import fc from "fast-check";
import { readClientHello } from "./client-hello.ts";

const ext = (type: number, body: number[]) => [0, type, ...u16(body.length), ...body];
const u16 = (n: number) => [n >> 8, n & 255];
const ascii = (text: string) => [...Buffer.from(text)];

function hello(name: string, alpn: readonly string[]): Uint8Array {
  const sni = [...u16(name.length + 3), 0, ...u16(name.length), ...ascii(name)];
  const list = alpn.flatMap((item) => [item.length, ...ascii(item)]);
  const extensions = [...ext(0, sni), ...ext(16, [...u16(list.length), ...list])];
  const body = [
    ...[3, 3, ...Array(32).fill(7), 0],
    ...[...u16(2), 0x13, 0x01, 1, 0],
    ...[...u16(extensions.length), ...extensions],
  ];
  const message = [1, 0, ...u16(body.length), ...body];
  return Uint8Array.from([22, 3, 1, ...u16(message.length), ...message]);
}

const bytes = hello("P80.cart.default.weft.local", ["http/1.1"]);
const expected = {
  kind: "hello",
  serverName: "p80.cart.default.weft.local",
  alpn: ["http/1.1"],
} as const;

test("reads name and protocols", () => {
  expect(readClientHello(bytes)).toEqual(expected);
});

test("asks for more at every byte before the last", () => {
  for (let end = 0; end < bytes.length; end++) {
    expect(readClientHello(bytes.subarray(0, end)).kind).toBe("more");
  }
});

test("joins a message split over records", () => {
  const message = bytes.subarray(5);
  for (const cut of [1, 3, 40, message.length - 1]) {
    const record = (part: Uint8Array) => [22, 3, 1, ...u16(part.length), ...part];
    const split = [...record(message.subarray(0, cut)), ...record(message.subarray(cut))];
    expect(readClientHello(Uint8Array.from(split))).toEqual(expected);
  }
});

test("a hello in a great many pieces is refused, and costs little until then", () => {
  const message = Uint8Array.from([1, 0, 62, 128, ...Array(3000).fill(0)]);
  const records = Uint8Array.from([...message].flatMap((byte) => [22, 3, 1, 0, 1, byte]));
  let end = 1;
  while (readClientHello(records.subarray(0, end)).kind === "more") end++;
  expect(end).toBe(64 * 6);
});

test("a hello of 16 KB in 64 records is one", () => {
  const padded = Uint8Array.from([...hello("p80.cart.default.weft.local", ["http/1.1"])]);
  // Padding as a last extension; the three lengths around it grow with it.
  const body = padded.subarray(9);
  const extensions = 2 + 32 + 1 + 2 + 2 + 2;
  const padding = 15_000;
  const more = [...body, ...ext(21, Array(padding).fill(0))];
  const length = (body[extensions]! << 8) + body[extensions + 1]! + padding + 4;
  more.splice(extensions, 2, ...u16(length));
  const grown = [1, 0, ...u16(more.length), ...more];
  const size = Math.ceil(grown.length / 64);
  const records: number[] = [];
  for (let at = 0; at < grown.length; at += size) {
    const part = grown.slice(at, at + size);
    records.push(22, 3, 1, ...u16(part.length), ...part);
  }
  expect(readClientHello(Uint8Array.from(records))).toEqual(expected);
});

/** The hello of above with these extensions, and `after` them. */
function extended(extensions: readonly number[], after: readonly number[] = []): Uint8Array {
  const head = [3, 3, ...Array(32).fill(7), 0, ...u16(2), 0x13, 0x01, 1, 0];
  const body = [...head, ...u16(extensions.length), ...extensions, ...after];
  const message = [1, 0, ...u16(body.length), ...body];
  return Uint8Array.from([22, 3, 1, ...u16(message.length), ...message]);
}

const named = (name: string) => [0, ...u16(name.length), ...ascii(name)];
const sni = (list: readonly number[]) => ext(0, [...u16(list.length), ...list]);

test("what two readers could read as two names is malformed", () => {
  expect(readClientHello(extended(sni(named("a.test"))))).toMatchObject({ serverName: "a.test" });
  const twice: readonly Uint8Array[] = [
    extended([...sni(named("a.test")), ...sni(named("b.test"))]),
    extended(sni([...named("a.test"), ...named("b.test")])),
    extended(ext(0, [...u16(9), ...named("a.test"), ...u16(9), ...named("b.test")])),
    extended(sni(named("a.test")), sni(named("b.test"))),
    extended([...ext(16, [0, 3, 2, 104, 50]), ...ext(16, [0, 3, 2, 104, 51])]),
  ];
  for (const one of twice) expect(readClientHello(one).kind).toBe("malformed");
});

test("reserved values among the extensions (GREASE) are passed over", () => {
  const grease = [...ext(10, []), 0x0a, 0x0a, 0, 0, ...sni(named("A.test")), 0xfa, 0xfa, 0, 1, 0];
  expect(readClientHello(extended(grease))).toMatchObject({ kind: "hello", serverName: "a.test" });
});

test("never throws", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(), fc.nat(255), (noise, at, value) => {
      readClientHello(noise);
      const mutated = Uint8Array.from(bytes);
      mutated[at % mutated.length] = value;
      readClientHello(mutated);
    }),
  );
});
