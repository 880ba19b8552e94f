import { expect, test } from "bun:test";
import { HostNames, isForbidden } from "./host-names.ts";

class Resolver {
  asked: string[] = [];
  clock = 0;
  answer: () => readonly string[] | Promise<readonly string[]> = () => [];
  readonly names = new HostNames({
    lookup: async (host) => {
      this.asked.push(host);
      return this.answer();
    },
    ownPorts: new Set([17001]),
    now: () => this.clock,
  });

  async find(host: string, port = 443): Promise<string> {
    const found = await this.names.find(host, port);
    return found.kind === "addresses" ? found.addresses.join() : found.why;
  }
}

const fail = () => Promise.reject(new Error("SERVFAIL"));

test("an answer is kept, then asked for again without keeping anybody waiting", async () => {
  const r = new Resolver();
  r.answer = () => ["192.0.2.7", "192.0.2.8", "192.0.2.7"];
  expect(await Promise.all([r.find("a.test"), r.find("a.test")])).toEqual([
    "192.0.2.7,192.0.2.8",
    "192.0.2.7,192.0.2.8",
  ]);
  r.clock = 29_000;
  await r.find("a.test");
  expect(r.asked).toEqual(["a.test"]);
  r.clock = 30_001;
  const later = Promise.withResolvers<readonly string[]>();
  r.answer = () => later.promise;
  expect(await r.find("a.test")).toBe("192.0.2.7,192.0.2.8");
  expect(await r.find("a.test")).toBe("192.0.2.7,192.0.2.8");
  expect(r.asked).toHaveLength(2);
  later.resolve(["192.0.2.9"]);
  await Bun.sleep(1);
  expect(await r.find("a.test")).toBe("192.0.2.9");
});

test("the last good answer outlives failures of the resolver and empty answers", async () => {
  const r = new Resolver();
  r.answer = () => ["192.0.2.7"];
  await r.find("a.test");
  for (const broken of [fail, () => []]) {
    r.answer = broken;
    for (let i = 0; i < 3; i++) {
      r.clock += 60_000;
      expect(await r.find("a.test")).toBe("192.0.2.7");
      await Bun.sleep(1);
    }
  }
  const { length } = r.asked;
  r.clock += 4000;
  await r.find("a.test");
  expect(r.asked).toHaveLength(length);
  r.answer = () => ["192.0.2.9"];
  r.clock += 2000;
  await r.find("a.test");
  await Bun.sleep(1);
  expect(await r.find("a.test")).toBe("192.0.2.9");
});

test("a name without an address is asked for again after a while, not at once", async () => {
  const r = new Resolver();
  r.answer = fail;
  expect(await r.find("a.test")).toBe("a.test has no address");
  expect(await r.find("a.test")).toBe("a.test has no address");
  expect(r.asked).toHaveLength(1);
  r.clock = 5001;
  r.answer = () => ["192.0.2.7"];
  expect(await r.find("a.test")).toBe("192.0.2.7");
});

test("names cannot fill memory", async () => {
  const r = new Resolver();
  r.answer = () => ["192.0.2.7"];
  for (let i = 0; i < 1500; i++) await r.find(`n${i}.test`);
  r.asked = [];
  await r.find("n1499.test");
  expect(r.asked).toHaveLength(0);
  await r.find("n0.test");
  expect(r.asked).toEqual(["n0.test"]);
});

test("only addresses that are elsewhere are dialled", async () => {
  const r = new Resolver();
  const refused = "a.test is an address of this host or its link";
  for (const address of ["127.0.0.1", "::1", "169.254.169.254", "fe80::1", "0.0.0.0", "::"]) {
    const own = new Resolver();
    own.answer = () => [address];
    expect(await own.find("a.test")).toBe(refused);
    expect(await own.find(address.includes(":") ? `[${address}]` : address)).toContain("this host");
  }
  r.answer = () => ["127.0.0.1", "192.0.2.7", "::ffff:127.0.0.1"];
  expect(await r.find("a.test")).toBe("192.0.2.7");
  expect(isForbidden("not an address")).toBe(true);
});
