import { describe, expect, test } from "bun:test";
import { createConfigKey } from "../identity/config-key.ts";
import { Assembler, type Commit } from "./assemble.ts";
import { configKeysOf, sha256Hex, signMessage } from "./envelope.ts";

const signer = createConfigKey();
const other = createConfigKey();
const keys = configKeysOf([{ kid: signer.kid, key: signer.publicKey }]);
const accept = () => [];
const text = (body: object) => Buffer.from(JSON.stringify(body));

/** What a control plane would write: every message it signed, and its heads. */
class Desk {
  epoch = 1;
  rev = 0;
  t = 1000;
  readonly bus = new Map<string, Uint8Array>();

  put(changes: Readonly<Record<string, object | null>>, prev = this.rev): Uint8Array[] {
    this.rev += 1;
    const messages = Object.entries(changes).map(([key, body]) => {
      const op = body === null ? "del" : "put";
      const { epoch, rev, t } = this;
      const bytes = signMessage(signer, { epoch, rev, key, op, t }, text(body ?? {}));
      this.bus.set(key, bytes);
      return [key, bytes] as const;
    });
    const changed = messages.map(([key, bytes]) => [key, sha256Hex(bytes)]);
    const head = this.beat({ prev, changed });
    return [...messages.map(([, bytes]) => bytes), head];
  }

  beat(body: object = { prev: 0, changed: [] }): Uint8Array {
    const { epoch, rev } = this;
    const t = ++this.t;
    const whole = { epoch, rev, t, ...body };
    const head = signMessage(signer, { epoch, rev, key: "head", op: "put", t }, text(whole));
    this.bus.set("head", head);
    return head;
  }
}

const grants = ["mesh", "in.default.web", "out.default.cart", "eps.default.cart.*"];
const start = { mesh: {}, "out.default.cart": { shards: 1 }, "eps.default.cart.0": { n: 1 } };

/** Answers reads from the desk's bus until none is wanted; returns the keys in order. */
function read(assembler: Assembler, desk: Desk): string[] {
  const asked: string[] = [];
  for (let keys = assembler.take(); keys.length > 0; keys = assembler.take()) {
    for (const key of keys) {
      asked.push(key);
      assembler.answered(key, desk.bus.get(key));
    }
  }
  return asked;
}

function revOf(commit: Commit | undefined): number | undefined {
  return commit?.kind === "set" ? commit.set.rev : undefined;
}

function started(): { readonly desk: Desk; readonly assembler: Assembler } {
  const desk = new Desk();
  desk.put(start);
  const assembler = new Assembler(keys, grants);
  assembler.resume();
  read(assembler, desk);
  expect(revOf(assembler.commit(accept))).toBe(1);
  return { desk, assembler };
}

function key(bytes: Uint8Array): string {
  const line = Buffer.from(bytes.subarray(64)).toString().split("\n")[0] ?? "";
  return (JSON.parse(line) as { key: string }).key;
}

function hear(assembler: Assembler, messages: readonly Uint8Array[]): void {
  for (const bytes of messages) assembler.offer(key(bytes), bytes);
}

test("a first start reads the head first, then its keys, then the shards", () => {
  const desk = new Desk();
  desk.put({ ...start, "out.default.cart": { shards: 2 }, "eps.default.cart.1": {} });
  const assembler = new Assembler(keys, grants);
  assembler.resume();
  expect(assembler.take()).toEqual(["head"]);
  expect(assembler.take()).toEqual([]);
  assembler.answered("head", desk.bus.get("head"));
  const asked = read(assembler, desk);
  expect(asked.slice(0, 3)).toEqual(["mesh", "in.default.web", "out.default.cart"]);
  expect(asked.slice(3)).toEqual(["eps.default.cart.0", "eps.default.cart.1"]);
  expect(revOf(assembler.commit(accept))).toBe(1);
  expect([...(assembler.set?.documents.keys() ?? [])].sort()).toEqual(
    ["eps.default.cart.0", "eps.default.cart.1", "mesh", "out.default.cart"].sort(),
  );
});

test("several documents take effect together, and only when all are there", () => {
  const { desk, assembler } = started();
  const [out, eps, head] = desk.put({
    "out.default.cart": { shards: 1, v: 2 },
    "eps.default.cart.0": { n: 2 },
  }) as [Uint8Array, Uint8Array, Uint8Array];
  assembler.offer("out.default.cart", out);
  expect(assembler.commit(accept)).toBeUndefined();
  assembler.offer("head", head);
  expect(assembler.commit(accept)).toBeUndefined();
  assembler.offer("eps.default.cart.0", eps);
  read(assembler, desk);
  expect(revOf(assembler.commit(accept))).toBe(2);
  expect(assembler.set?.documents.get("eps.default.cart.0")).toEqual({ n: 2 });
});

test("a head that changes nothing in use is committed at once", () => {
  const { desk, assembler } = started();
  hear(assembler, desk.put({ "out.default.other": {} }).slice(-1));
  expect(revOf(assembler.commit(accept))).toBe(2);
});

test("a message missed on the way is read", () => {
  const { desk, assembler } = started();
  hear(assembler, desk.put({ "eps.default.cart.0": { n: 2 } }).slice(-1));
  expect(assembler.commit(accept)).toBeUndefined();
  expect(read(assembler, desk)).toEqual(["eps.default.cart.0"]);
  expect(revOf(assembler.commit(accept))).toBe(2);
});

test("a gap in the chain of heads reads everything in use again", () => {
  const { desk, assembler } = started();
  desk.put({ "eps.default.cart.0": { n: 2 } });
  hear(assembler, desk.put({ mesh: { v: 3 } }));
  expect(read(assembler, desk).sort()).toEqual(
    ["mesh", "in.default.web", "out.default.cart", "eps.default.cart.0"].sort(),
  );
  expect(revOf(assembler.commit(accept))).toBe(3);
  expect(assembler.set?.documents.get("eps.default.cart.0")).toEqual({ n: 2 });
});

test("two heads in a row before the messages: both changes take effect", () => {
  const { desk, assembler } = started();
  const first = desk.put({ "eps.default.cart.0": { n: 2 } });
  const second = desk.put({ mesh: { v: 3 } });
  hear(assembler, [...first.slice(-1), ...second.slice(-1)]);
  expect(assembler.commit(accept)).toBeUndefined();
  read(assembler, desk);
  expect(revOf(assembler.commit(accept))).toBe(3);
  expect(assembler.set?.documents.get("mesh")).toEqual({ v: 3 });
});

test("a value read ahead of its head waits for that head", () => {
  const { desk, assembler } = started();
  const old = desk.beat();
  const [eps, head] = desk.put({ "eps.default.cart.0": { n: 2 } }) as [Uint8Array, Uint8Array];
  assembler.grant(["out.default.orders"]);
  assembler.offer("head", old);
  assembler.offer("eps.default.cart.0", eps);
  read(assembler, desk);
  expect(assembler.commit(accept)).toBeUndefined();
  expect(assembler.set?.documents.get("eps.default.cart.0")).toEqual({ n: 1 });
  assembler.offer("head", head);
  expect(revOf(assembler.commit(accept))).toBe(2);
  expect(assembler.set?.documents.get("eps.default.cart.0")).toEqual({ n: 2 });
});

test("a new grant is read and committed under the present head", () => {
  const { desk, assembler } = started();
  hear(assembler, desk.put({ "out.default.orders": { shards: 1 }, "eps.default.orders.0": {} }));
  assembler.commit(accept);
  assembler.grant(["out.default.orders", "eps.default.orders.*"]);
  expect(read(assembler, desk)).toEqual(["out.default.orders", "eps.default.orders.0"]);
  expect(revOf(assembler.commit(accept))).toBe(2);
  expect(assembler.set?.documents.has("eps.default.orders.0")).toBe(true);
});

describe("absence never relaxes", () => {
  test("a wiped bus changes nothing", () => {
    const { desk, assembler } = started();
    desk.bus.clear();
    assembler.resume();
    read(assembler, desk);
    expect(assembler.commit(accept)).toBeUndefined();
    expect(assembler.set?.documents.size).toBe(3);
  });

  test("a new epoch that lacks a key keeps it", () => {
    const { desk, assembler } = started();
    desk.bus.clear();
    desk.epoch = 2;
    hear(assembler, desk.put({ mesh: { v: 2 } }, 0));
    read(assembler, desk);
    expect(revOf(assembler.commit(accept))).toBe(2);
    expect(assembler.set?.epoch).toBe(2);
    expect(assembler.set?.documents.get("eps.default.cart.0")).toEqual({ n: 1 });
  });

  test("a removal counts when a head names it, and its older put does not come back", () => {
    const { desk, assembler } = started();
    const old = desk.bus.get("eps.default.cart.0") as Uint8Array;
    const [removal, head] = desk.put({ "eps.default.cart.0": null }) as [Uint8Array, Uint8Array];
    assembler.offer("eps.default.cart.0", removal);
    expect(assembler.commit(accept)).toBeUndefined();
    expect(assembler.set?.documents.has("eps.default.cart.0")).toBe(true);
    assembler.offer("head", head);
    expect(revOf(assembler.commit(accept))).toBe(2);
    expect(assembler.set?.documents.has("eps.default.cart.0")).toBe(false);
    assembler.offer("eps.default.cart.0", old);
    hear(assembler, desk.put({ mesh: {} }));
    assembler.commit(accept);
    expect(assembler.set?.documents.has("eps.default.cart.0")).toBe(false);
  });
});

test("a thousand hostile messages: none applied, all counted", () => {
  const { desk, assembler } = started();
  const kept = [...desk.bus];
  hear(assembler, desk.put({ mesh: { v: 2 }, "eps.default.cart.0": { n: 2 } }));
  assembler.commit(accept);
  const before = assembler.set;
  const counted = () => [...assembler.counts.values()].reduce((sum, n) => sum + n, 0);
  const accepted = assembler.counts.get("accepted");
  const base = counted();
  const forge = (n: number) =>
    signMessage(other, { epoch: 9, rev: n, key: "mesh", op: "put", t: n }, text({ forged: n }));
  const kinds: readonly ((n: number) => void)[] = [
    (n) => assembler.offer("mesh", forge(n)),
    (n) => assembler.offer(...(kept[n % kept.length] as [string, Uint8Array])),
    () => assembler.offer("in.default.web", desk.bus.get("mesh") as Uint8Array),
    () => assembler.offer("mesh", new Uint8Array(0)),
    (n) => assembler.offer("head", (desk.bus.get("head") as Uint8Array).slice(0, 50 + (n % 100))),
  ];
  for (let n = 0; n < 1000; n++) {
    kinds[n % kinds.length]?.(n);
    expect(assembler.commit(accept)).toBeUndefined();
  }
  expect(assembler.set).toBe(before);
  expect(counted() - base).toBe(1000);
  expect(assembler.counts.get("accepted")).toBe(accepted);
});

test("a set its proxy cannot use is refused whole, and the next one taken", () => {
  const { desk, assembler } = started();
  hear(assembler, desk.put({ mesh: { bad: true } }));
  const refuse = () => [{ key: "mesh", reason: "bad" }];
  expect(assembler.commit(refuse)?.kind).toBe("refused");
  expect(assembler.commit(refuse)).toBeUndefined();
  expect(assembler.set?.rev).toBe(1);
  hear(assembler, desk.put({ mesh: { good: true } }));
  expect(revOf(assembler.commit(accept))).toBe(3);
});

test("only fresh heads prove that the link lives", () => {
  const { desk, assembler } = started();
  const first = desk.beat();
  const second = desk.beat();
  assembler.offer("head", second);
  const time = assembler.headTime;
  assembler.offer("head", first);
  assembler.offer("head", second);
  expect(assembler.headTime).toBe(time);
  expect(assembler.counts.get("replayed")).toBe(2);
});

test("the keys that may sign change with a signed mesh document", () => {
  const { desk, assembler } = started();
  const configKeys = [{ kid: other.kid, key: other.publicKey }];
  hear(assembler, desk.put({ mesh: { configKeys } }));
  assembler.commit(accept);
  hear(assembler, desk.put({ mesh: { v: 9 } }));
  expect(assembler.commit(accept)).toBeUndefined();
  expect(assembler.counts.get("unknown_key")).toBe(2);
});
