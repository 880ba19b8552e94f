import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import {
  formatSpiffeId,
  isMeshTrustDomain,
  parseSni,
  parseSpiffeId,
  parseTrustDomain,
  parseWorkloadIdentity,
  serviceDnsNames,
  sniOf,
  spiffeIdOf,
} from "./spiffe.ts";

const CORPORA = process.env["WEFT_CORPORA"] ?? join(import.meta.dir, "../../../shared/corpora");
const CORPUS = join(CORPORA, "spiffe/spiffe-id-cases.json");

interface Case {
  readonly api: "FromString" | "TrustDomainFromString";
  readonly in: string;
  readonly ok: boolean;
}

describe("SPIFFE IDs", () => {
  test.skipIf(!existsSync(CORPUS))("every case of the go-spiffe corpus", () => {
    const cases: Case[] = JSON.parse(readFileSync(CORPUS, "utf8"));
    expect(cases.length).toBe(545);
    const wrong = cases.filter((each) => {
      const parse = each.api === "FromString" ? parseSpiffeId : parseTrustDomain;
      return (parse(each.in) !== undefined) !== each.ok;
    });
    expect(wrong).toEqual([]);
  });

  test.each([
    ["spiffe://td", true],
    ["spiffe://td/path/.hidden", true],
    ["spiffe://td.example_1-x/A/b", true],
    ["", false],
    ["Spiffe://td", false],
    ["spiffe://", false],
    ["spiffe:///path", false],
    ["spiffe://TD/path", false],
    ["spiffe://td/", false],
    ["spiffe://td//path", false],
    ["spiffe://td/../path", false],
    ["spiffe://td/.", false],
    ["spiffe://td/a%2fb", false],
    ["spiffe://td/path?query", false],
    ["spiffe://td:80/path", false],
    ["spiffe://user@td/path", false],
    ["spiffe://td/path\0", false],
    ["spiffe://td/path\n", false],
    [`spiffe://td/${"a".repeat(2048)}`, false],
  ])("%j: %p", (text, ok) => {
    expect(parseSpiffeId(text) !== undefined).toBe(ok);
  });

  test("every code point up to 255, in the trust domain and in the path", () => {
    for (let code = 0; code < 256; code++) {
      const letter = String.fromCodePoint(code);
      const inDomain = /[a-z0-9._-]/.test(letter) || letter === "/";
      const inPath = /[A-Za-z0-9._-]/.test(letter);
      expect(parseSpiffeId(`spiffe://td${letter}x/path`) !== undefined).toBe(inDomain);
      expect(parseSpiffeId(`spiffe://td/path${letter}`) !== undefined).toBe(inPath);
      expect(parseTrustDomain(`td${letter}`) !== undefined).toBe(inDomain && letter !== "/");
    }
  });

  test("what is accepted is written back unchanged", () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 40 }), (tail) => {
        const id = parseSpiffeId(`spiffe://${tail}`);
        if (id !== undefined) expect(formatSpiffeId(id)).toBe(`spiffe://${tail}`);
      }),
    );
  });

  test("a workload's identity has exactly namespace and account", () => {
    const id = spiffeIdOf("weft.local", "shop", "cart");
    expect(id).toBe("spiffe://weft.local/ns/shop/sa/cart");
    const identity = { trustDomain: "weft.local", namespace: "shop", serviceAccount: "cart" };
    expect(parseWorkloadIdentity(id)).toEqual(identity);
    expect(parseWorkloadIdentity(`${id}/more`)).toBeUndefined();
    expect(parseWorkloadIdentity("spiffe://weft.local/ns/shop")).toBeUndefined();
    expect(parseWorkloadIdentity("spiffe://weft.local/ns/Shop/sa/cart")).toBeUndefined();
  });
});

describe("names derived from a trust domain", () => {
  test("trust domains that leave room for service names", () => {
    expect(isMeshTrustDomain("weft.local")).toBe(true);
    expect(isMeshTrustDomain("a".repeat(64))).toBe(false);
    expect(isMeshTrustDomain("weft_local")).toBe(false);
    expect(isMeshTrustDomain(Array(60).fill("a").join("."))).toBe(false);
    expect(isMeshTrustDomain("weft..local")).toBe(false);
  });

  test("SNI and back, in any case", () => {
    const sni = sniOf(8080, "cart", "shop", "weft.local");
    expect(sni).toBe("p8080.cart.shop.weft.local");
    const target = { port: 8080, service: "cart", namespace: "shop" };
    expect(parseSni(sni, "weft.local")).toEqual(target);
    expect(parseSni(sni.toUpperCase(), "weft.local")).toEqual(target);
  });

  test.each([
    "",
    "weft.local",
    "cart.shop.weft.local",
    "p0.cart.shop.weft.local",
    "p65536.cart.shop.weft.local",
    "p08080.cart.shop.weft.local",
    "p80.x.cart.shop.weft.local",
    "p80.cart.shop.other.local",
    "p80.cart.shopweft.local",
    "p80.-cart.shop.weft.local",
    "p80.cart\0.shop.weft.local",
  ])("%j is no SNI of ours", (sni) => {
    expect(parseSni(sni, "weft.local")).toBeUndefined();
  });

  test("the wildcard of a service's certificate covers its SNI", () => {
    expect(serviceDnsNames("weft.local", "shop", "cart")).toEqual([
      "cart.shop.weft.local",
      "*.cart.shop.weft.local",
    ]);
  });
});

interface Golden {
  readonly trustDomain: string;
  readonly namespace: string;
  readonly service: string;
  readonly serviceAccount: string;
  readonly port: number;
  readonly spiffeId: string;
  readonly sni: string;
  readonly dnsNames: string[];
}

test("names are those that other versions know", () => {
  const path = join(import.meta.dir, "../../test/fixtures/contracts/names.json");
  const golden: Golden = JSON.parse(readFileSync(path, "utf8"));
  const { trustDomain, namespace, service, serviceAccount, port, spiffeId, sni } = golden;
  expect(spiffeIdOf(trustDomain, namespace, serviceAccount)).toBe(spiffeId);
  expect(parseWorkloadIdentity(spiffeId)).toEqual({ trustDomain, namespace, serviceAccount });
  expect(sniOf(port, service, namespace, trustDomain)).toBe(sni);
  expect(parseSni(sni, trustDomain)).toEqual({ port, service, namespace });
  expect(serviceDnsNames(trustDomain, namespace, service)).toEqual(golden.dnsNames);
});
