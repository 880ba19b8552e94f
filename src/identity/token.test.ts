import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import golden from "../../test/fixtures/contracts/token.json" with { type: "json" };
import { createToken, formatToken, parseToken, secretHash, secretMatches } from "./token.ts";

const ROOT = "ab".repeat(32);

describe("tokens", () => {
  test("written and read back, with space around", () => {
    const token = createToken("https://cp.example:17010", [ROOT], 1_800_000_000_000);
    const text = formatToken(token);
    expect(text.startsWith("weft_")).toBe(true);
    expect(parseToken(`  ${text}\n`)).toEqual(token);
    expect(Buffer.from(token.secret, "base64url").length).toBe(20);
  });

  test("golden: the bytes other versions write and read", () => {
    expect(formatToken(golden.token)).toBe(golden.text);
    expect(parseToken(golden.text)).toEqual(golden.token);
    expect(secretHash(golden.token.secret)).toBe(golden.secretHash);
    expect(secretMatches(golden.token.secret, golden.secretHash)).toBe(true);
  });

  test("anything else is no token", () => {
    const encode = (value: unknown) =>
      `weft_${Buffer.from(JSON.stringify(value)).toString("base64url")}`;
    const good = { cp: "https://x", roots: [ROOT], id: "1", secret: "s", exp: 0 };
    expect(parseToken(encode(good))).toEqual(good);
    for (const wrong of [
      { ...good, cp: 1 },
      { ...good, roots: [] },
      { ...good, roots: ["short"] },
      { ...good, roots: ROOT },
      { ...good, id: "" },
      { ...good, secret: "" },
      { ...good, exp: "never" },
      null,
      [],
      "text",
    ]) {
      expect(parseToken(encode(wrong))).toBeUndefined();
    }
    for (const text of ["", "weft_", "weft_%%%", "weftX", `weft_${"A".repeat(5000)}`]) {
      expect(parseToken(text)).toBeUndefined();
    }
    fc.assert(fc.property(fc.string(), (text) => parseToken(`weft_${text}`) === undefined));
  });

  test("the stored hash accepts its secret and no other", () => {
    const { secret } = createToken("https://x", [ROOT], 0);
    const hash = secretHash(secret);
    expect(hash).not.toContain(secret);
    expect(secretMatches(secret, hash)).toBe(true);
    expect(secretMatches(`${secret}x`, hash)).toBe(false);
    expect(secretMatches("", hash)).toBe(false);
    expect(secretMatches(secret, "")).toBe(false);
    expect(secretMatches(secret, "zz")).toBe(false);
  });
});
