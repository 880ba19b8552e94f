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
