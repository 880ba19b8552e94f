import { expect, test } from "bun:test";
import { hostname } from "node:os";
import { isLoopback, namesOf, ownHost, urlHost } from "./addresses.ts";

test("a loopback API is named by loopback addresses only", () => {
  expect(isLoopback("127.0.0.1")).toBe(true);
  expect(isLoopback("::1")).toBe(true);
  expect(isLoopback("10.0.0.1")).toBe(false);
  expect(namesOf("127.0.0.1")).toEqual({ hostnames: [hostname()], addresses: ["127.0.0.1"] });
  expect(urlHost("127.0.0.1")).toBe("127.0.0.1");
});

test("an API on every address is named by each, and dialled by loopback from here", () => {
  const { addresses } = namesOf("0.0.0.0");
  expect(addresses).toContain("127.0.0.1");
  expect(addresses.some((address) => address.includes("%"))).toBe(false);
  expect(ownHost("0.0.0.0")).toBe("127.0.0.1");
  expect(ownHost("::")).toBe("[::1]");
  expect(urlHost("0.0.0.0")).not.toBe("0.0.0.0");
});

test("IPv6 addresses are bracketed in URLs; names go into the certificate as names", () => {
  expect(urlHost("fd00::1")).toBe("[fd00::1]");
  expect(namesOf("mesh.example")).toEqual({
    hostnames: [hostname(), "mesh.example"],
    addresses: [],
  });
});
