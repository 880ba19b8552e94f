import { describe, expect, test } from "bun:test";
import { nkeys } from "nats";
import { createNkey, isNkeyPublic, nkeyFromSeed } from "./nkey.ts";

describe("nkeys", () => {
  test("the client library reads our seeds and verifies our signatures", () => {
    for (let turn = 0; turn < 20; turn++) {
      const key = createNkey("user");
      const theirs = nkeys.fromSeed(new TextEncoder().encode(key.seed));
      expect(theirs.getPublicKey()).toBe(key.publicKey);
      const message = new TextEncoder().encode(`nonce ${turn}`);
      expect(theirs.verify(message, key.sign(message))).toBe(true);
    }
  });

  test("types have their letters, and a seed is only read as its own type", () => {
    const operator = createNkey("operator");
    const account = createNkey("account");
    expect(operator.publicKey[0]).toBe("O");
    expect(account.publicKey[0]).toBe("A");
    expect(operator.seed.slice(0, 2)).toBe("SO");
    expect(account.seed.slice(0, 2)).toBe("SA");
    expect(nkeyFromSeed("operator", operator.seed)?.publicKey).toBe(operator.publicKey);
    expect(nkeyFromSeed("user", operator.seed)).toBeUndefined();
    expect(isNkeyPublic("user", account.publicKey)).toBe(false);
  });

  test("spare bits of the last letter must be zero", () => {
    // 36 bytes leave two bits of 58 letters over: three more spellings of the same bytes.
    const { seed } = createNkey("user");
    const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    const last = letters.indexOf(seed.at(-1)!);
    for (let spare = 1; spare < 4; spare++) {
      const other = seed.slice(0, -1) + letters[last + spare];
      expect(nkeyFromSeed("user", other)).toBeUndefined();
    }
  });

  test("one wrong letter is noticed", () => {
    const { seed, publicKey } = createNkey("user");
    const flip = (text: string, at: number) =>
      text.slice(0, at) + (text[at] === "A" ? "B" : "A") + text.slice(at + 1);
    for (let at = 2; at < seed.length; at++) {
      expect(nkeyFromSeed("user", flip(seed, at))).toBeUndefined();
    }
    for (let at = 1; at < publicKey.length; at++) {
      expect(isNkeyPublic("user", flip(publicKey, at))).toBe(false);
    }
    expect(isNkeyPublic("user", "")).toBe(false);
    expect(isNkeyPublic("user", `${publicKey}\n`)).toBe(false);
  });
});
