import { describe, expect, test } from "bun:test";
import { createPrivateKey, sign } from "node:crypto";
import golden from "../../test/fixtures/contracts/config-message.json" with { type: "json" };
import { createConfigKey } from "../identity/config-key.ts";
import {
  compareVersions,
  configKeysOf,
  MESSAGE_BYTES_MAX,
  openMessage,
  signMessage,
} from "./envelope.ts";

const signer = createConfigKey();
const stranger = createConfigKey();
const keys = configKeysOf([{ kid: signer.kid, key: signer.publicKey }]);
const body = Buffer.from('{"service":"cart"}');
const header = {
  epoch: 3,
  rev: 7,
  key: "out.default.cart",
  op: "put",
  t: 1_700_000_000_000,
} as const;
const good = signMessage(signer, header, body);

/** A message signed by `by` whose header line and body are anything. */
function craft(line: string, content: string, by = signer): Uint8Array {
  const signed = Buffer.from(`${line}\n${content}`);
  return Buffer.concat([sign(null, signed, by.privateKey), signed]);
}

function headerLine(change: object): string {
  return JSON.stringify({ v: 1, kid: signer.kid, ...header, schema: 1, len: 2, ...change });
}

test("layout: signature, header line, body", () => {
  const line = Buffer.from(good.subarray(64)).toString();
  expect(line).toBe(
    `{"v":1,"kid":"${signer.kid}","epoch":3,"rev":7,"key":"out.default.cart","op":"put",` +
      `"t":1700000000000,"schema":1,"len":18}\n{"service":"cart"}`,
  );
});

for (const { header, body: text, base64 } of golden.messages) {
  test(`golden: a fixed key signs this ${header.op} to fixed bytes, and they open`, () => {
    const prefix = Buffer.from("302e020100300506032b657004220420", "hex");
    const der = Buffer.concat([prefix, Buffer.from(golden.privateSeed, "hex")]);
    const privateKey = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
    const { kid, publicKey } = golden;
    const op = header.op === "del" ? "del" : "put";
    const message = signMessage({ kid, privateKey }, { ...header, op }, Buffer.from(text));
    expect(Buffer.from(message).toString("base64")).toBe(base64);
    const known = configKeysOf([{ kid, key: publicKey }]);
    expect(openMessage(Buffer.from(base64, "base64"), header.key, known).kind).toBe("opened");
  });
}

test("a good message opens to its document", () => {
  const opened = openMessage(good, "out.default.cart", keys);
  if (opened.kind !== "opened") throw new Error(opened.detail);
  expect(opened.document).toEqual({ service: "cart" });
  expect(opened.header.rev).toBe(7);
  expect(opened.sha256).toMatch(/^[0-9a-f]{64}$/);
});

test("a signed removal opens with an empty document", () => {
  const removal = signMessage(signer, { ...header, op: "del" }, new Uint8Array(0));
  const opened = openMessage(removal, header.key, keys);
  expect(opened.kind === "opened" && opened.header.op).toBe("del");
});

describe("refused", () => {
  const forged = signMessage(stranger, header, body);
  const impostor = signMessage({ kid: signer.kid, privateKey: stranger.privateKey }, header, body);
  const rows: readonly (readonly [string, Uint8Array, string, string])[] = [
    ["an unlisted key", forged, header.key, "unknown_key"],
    ["a listed key's name with another key", impostor, header.key, "bad_signature"],
    ["replayed under another key", good, "out.default.orders", "wrong_subject"],
    ["empty", new Uint8Array(0), header.key, "malformed"],
    ["only a signature", good.subarray(0, 64), header.key, "malformed"],
    ["no end of the header line", good.subarray(0, 100), header.key, "malformed"],
    ["cut by one byte", good.subarray(0, good.length - 1), header.key, "bad_signature"],
    ["one byte more", Buffer.concat([good, Buffer.from("x")]), header.key, "bad_signature"],
    ["too big", new Uint8Array(MESSAGE_BYTES_MAX + 1), header.key, "too_big"],
    ["a length that lies", craft(headerLine({ len: 3 }), "{}"), header.key, "malformed"],
    ["a body that is a list", craft(headerLine({}), "[]"), header.key, "malformed"],
    ["a body that is no JSON", craft(headerLine({}), "{,"), header.key, "malformed"],
    ["schema N+1", craft(headerLine({ schema: 2 }), "{}"), header.key, "wrong_schema"],
    ["a header that is a list", craft("[]", "{}"), header.key, "malformed"],
    ["another version", craft(headerLine({ v: 2 }), "{}"), header.key, "malformed"],
    ["a negative revision", craft(headerLine({ rev: -1 }), "{}"), header.key, "malformed"],
    ["a fractional epoch", craft(headerLine({ epoch: 1.5 }), "{}"), header.key, "malformed"],
    ["an unknown operation", craft(headerLine({ op: "purge" }), "{}"), header.key, "malformed"],
    ["a header line of 2 KiB", craft(headerLine({ x: "y".repeat(2048) }), "{}"), "k", "malformed"],
  ];
  for (const [name, bytes, key, cause] of rows) {
    test(name, () => {
      const result = openMessage(bytes, key, keys);
      expect(result.kind === "refused" ? result.cause : "opened").toBe(cause);
    });
  }
  test("every flipped bit", () => {
    for (let bit = 0; bit < good.length * 8; bit++) {
      const flipped = Buffer.from(good);
      flipped[bit >> 3] = flipped[bit >> 3]! ^ (1 << (bit & 7));
      if (openMessage(flipped, header.key, keys).kind !== "refused") throw new Error(`bit ${bit}`);
    }
  });
  test("every shorter prefix", () => {
    for (let length = 0; length < good.length; length++) {
      expect(openMessage(good.subarray(0, length), header.key, keys).kind).toBe("refused");
    }
  });
});

test("schema N-1 is accepted", () => {
  expect(openMessage(craft(headerLine({ schema: 0 }), "{}"), header.key, keys).kind).toBe("opened");
});

test("order: epoch before revision", () => {
  expect(compareVersions({ epoch: 2, rev: 1 }, { epoch: 1, rev: 9 })).toBeGreaterThan(0);
  expect(compareVersions({ epoch: 1, rev: 1 }, { epoch: 1, rev: 2 })).toBeLessThan(0);
  expect(compareVersions({ epoch: 1, rev: 2 }, { epoch: 1, rev: 2 })).toBe(0);
});
