import { describe, expect, test } from "bun:test";
import { inRange } from "../std/address-range.ts";
import { mayRegister, readAcknowledgement, readRegistration, senderOf } from "./registration.ts";

const bytes = (value: unknown) => Buffer.from(JSON.stringify(value));

describe("which address a workload may register", () => {
  const host = ["127.0.0.1", "10.1.2.3"];
  const none = { source: undefined, last: undefined, cidr: undefined, host };
  const rows: readonly (readonly [string, string, object, boolean])[] = [
    ["loopback", "127.0.0.1", {}, true],
    ["loopback of a node's workload", "127.0.17.3", {}, true],
    ["where it was seen", "192.0.2.7", { source: "192.0.2.7" }, true],
    ["where it was seen, by IPv6", "192.0.2.7", { source: "::ffff:192.0.2.7" }, true],
    ["an address of this host, by IPv6", "10.1.2.3", { source: "::ffff:127.0.0.1" }, true],
    ["the same address, written long", "fd00::1", { source: "fd00:0:0:0:0:0:0:1" }, true],
    ["elsewhere", "192.0.2.8", { source: "192.0.2.7" }, false],
    ["never seen", "192.0.2.8", {}, false],
    ["as before", "192.0.2.8", { last: "192.0.2.8" }, true],
    ["an address of this host, seen by loopback", "10.1.2.3", { source: "127.0.0.1" }, true],
    ["another host's, seen by loopback", "10.1.2.4", { source: "127.0.0.1" }, false],
    ["inside its token's range", "10.9.0.1", { cidr: "10.9.0.0/16" }, true],
    ["outside of it", "10.8.0.1", { cidr: "10.9.0.0/16" }, false],
    ["loopback outside of it", "127.0.0.1", { cidr: "10.9.0.0/16" }, false],
  ];
  for (const [name, addr, facts, allowed] of rows) {
    test(name, () => expect(mayRegister(addr, { ...none, ...facts })).toBe(allowed));
  }
});

test("ranges of both families, and nonsense", () => {
  expect(inRange("10.1.2.3", "10.0.0.0/8")).toBe(true);
  expect(inRange("11.1.2.3", "10.0.0.0/8")).toBe(false);
  expect(inRange("fd00::1", "fd00::/8")).toBe(true);
  expect(inRange("10.1.2.3", "fd00::/8")).toBe(false);
  expect(inRange("10.1.2.3", "10.1.2.3")).toBe(true);
  for (const cidr of ["", "10.0.0.0/33", "10.0.0.0/x", "ten/8", "10.0.0.0/-1"]) {
    expect(inRange("10.0.0.1", cidr)).toBe(false);
  }
});

test("a subject names exactly one workload", () => {
  expect(senderOf("weft.ack.ns.svc.id", "weft.ack.")).toEqual({
    namespace: "ns",
    service: "svc",
    instance: "id",
  });
  for (const subject of [
    "weft.ack.ns.svc",
    "weft.ack.ns.svc.id.x",
    "weft.ack.ns..id",
    "_INBOX.x",
  ]) {
    expect(senderOf(subject, "weft.ack.")).toBeUndefined();
  }
});

test("nothing that comes as a registration makes the reader throw", () => {
  const values = [null, 1, "x", [], {}, { boot: 1 }, { ports: [] }, { labels: null }, "\u0000"];
  for (const value of values) expect(readRegistration(bytes(value))).toHaveProperty("wrong");
  for (const text of ["", "{", "\xff", "[".repeat(10_000)]) {
    expect(readRegistration(Buffer.from(text, "latin1"))).toHaveProperty("wrong");
  }
});

test("deeply nested JSON: is refused like anything else that is no registration", () => {
  const deep = `${"[".repeat(15_000)}${"]".repeat(15_000)}`;
  for (const text of [deep, `{"boot":"a","labels":${deep}}`, `{"boot":"a","ports":${deep}}`]) {
    expect(readRegistration(Buffer.from(text))).toHaveProperty("wrong");
  }
  const acknowledged = `{"epoch":1,"rev":1,"refused":${deep}}`;
  expect(readAcknowledgement(Buffer.from(acknowledged))).toEqual({ epoch: 1, rev: 1, refused: [] });
});

test("texts with control characters do not reach an operator's terminal", () => {
  const good = {
    ...{ boot: "b", addr: "127.0.0.1", meshPort: 1, ports: {}, labels: {} as object },
    ...{ locality: "", weight: 1, version: "1", schema: 1 },
  };
  expect(readRegistration(bytes(good))).not.toHaveProperty("wrong");
  for (const bad of ["\u001b[2J", "a\nb", "\u0000", "\u009b31m", "\u007f", "\u202e"]) {
    for (const field of ["boot", "locality", "version"]) {
      expect(readRegistration(bytes({ ...good, [field]: bad }))).toHaveProperty("wrong");
    }
    for (const labels of [{ a: bad }, { [bad]: "a" }]) {
      expect(readRegistration(bytes({ ...good, labels }))).toHaveProperty("wrong");
    }
    const refused = [{ key: "k", reason: `x${bad}y` }];
    const reason = readAcknowledgement(bytes({ epoch: 1, rev: 1, refused }))?.refused[0]?.reason;
    expect(reason).toBe(`x${bad.replace(/[\p{Cc}\p{Cf}]/gu, "?")}y`);
  }
});

test("an acknowledgement keeps at most 20 reasons, each of bounded length", () => {
  const refused = Array.from({ length: 50 }, (_, n) => ({
    key: `k${n}`,
    reason: "r".repeat(600),
  }));
  const ack = readAcknowledgement(bytes({ epoch: 1, rev: 2, refused }));
  expect(ack?.refused.length).toBe(20);
  expect(ack?.refused[0]?.reason.length).toBe(500);
  expect(readAcknowledgement(bytes({ epoch: "1", rev: 2 }))).toBeUndefined();
});
