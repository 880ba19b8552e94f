import { afterEach, beforeEach, expect, test } from "bun:test";
import { copyFileSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createConfigKey } from "../identity/config-key.ts";
import { Assembler, type DocumentSet } from "../snapshot/assemble.ts";
import { configKeysOf, sha256Hex, signMessage } from "../snapshot/envelope.ts";
import { decodeSet, encodeSet, loadSet, SetWriter } from "./disk-set.ts";

const key = createConfigKey();
const keys = configKeysOf([{ kid: key.kid, key: key.publicKey }]);

let folder: string;
let current: string;
let previous: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "weft-set-"));
  current = join(folder, "config.set");
  previous = join(folder, "config.prev.set");
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** A committed set of revision `rev`. */
function setOf(rev: number, epoch = 1): DocumentSet {
  const sign = (name: string, body: object) => {
    const header = { epoch, rev, key: name, op: "put", t: rev } as const;
    return signMessage(key, header, Buffer.from(JSON.stringify(body)));
  };
  const mesh = sign("mesh", { rev });
  const changed = [["mesh", sha256Hex(mesh)]];
  const assembler = new Assembler(keys, ["mesh"]);
  assembler.offer("mesh", mesh);
  assembler.offer("head", sign("head", { epoch, rev, prev: 0, t: rev, changed }));
  for (const name of assembler.take()) assembler.answered(name, undefined);
  const commit = assembler.commit(() => []);
  if (commit?.kind !== "set") throw new Error("no set");
  return commit.set;
}

async function write(...sets: readonly DocumentSet[]): Promise<void> {
  const errors: unknown[] = [];
  const writer = new SetWriter(folder, undefined, (error) => errors.push(error));
  for (const set of sets) {
    writer.write(set);
    await writer.settled();
  }
  expect(errors).toEqual([]);
}

function flip(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes[at] = bytes[at]! ^ 1;
  writeFileSync(path, bytes);
}

test("what was written is loaded, and readable by its owner only", async () => {
  await write(setOf(1), setOf(2));
  const { set, problems } = loadSet(folder, keys);
  expect(problems).toEqual([]);
  expect(set?.rev).toBe(2);
  expect(set?.documents.get("mesh")).toEqual({ rev: 2 });
  expect(statSync(current).mode & 0o777).toBe(0o600);
});

test("an empty folder holds no set and no problem", () => {
  expect(loadSet(folder, keys)).toEqual({ set: undefined, problems: [] });
});

test("any flipped byte is refused with its reason, and the previous set used", async () => {
  await write(setOf(1), setOf(2));
  const intact = readFileSync(current);
  for (let at = 0; at < intact.length; at += 7) {
    writeFileSync(current, intact);
    flip(current, at);
    const { set, problems } = loadSet(folder, keys);
    expect(set?.rev).toBe(1);
    expect(problems[0]?.code).toBe("set_damaged");
    expect(problems[0]?.message).toContain("config.set is damaged and was refused");
  }
});

test("a cut set is refused, and the previous one used", async () => {
  await write(setOf(1), setOf(2));
  writeFileSync(current, readFileSync(current).subarray(0, 100));
  expect(loadSet(folder, keys).set?.rev).toBe(1);
});

test("both damaged: no set, both told", async () => {
  await write(setOf(1), setOf(2));
  flip(current, 20);
  flip(previous, 20);
  const { set, problems } = loadSet(folder, keys);
  expect(set).toBeUndefined();
  expect(problems.length).toBe(2);
});

test("a set rolled back by hand is refused", async () => {
  await write(setOf(1), setOf(2), setOf(3));
  copyFileSync(previous, current);
  const { set, problems } = loadSet(folder, keys);
  expect(set).toBeUndefined();
  expect(problems[0]?.code).toBe("set_rolled_back");
  expect(problems[0]?.message).toContain("revision 3 of epoch 1 was in force here before");
});

test("an older set is refused in the place of the previous one, too", async () => {
  await write(setOf(1));
  const old = readFileSync(current);
  await write(setOf(2), setOf(3));
  writeFileSync(previous, old);
  flip(current, 40);
  const { set, problems } = loadSet(folder, keys);
  expect(set).toBeUndefined();
  expect(problems.map(({ code }) => code)).toEqual(["set_damaged", "set_rolled_back"]);
});

test("a set with a right hash and a forged message is refused", () => {
  const other = createConfigKey();
  const set = setOf(5);
  const forged = configKeysOf([{ kid: key.kid, key: other.publicKey }]);
  expect(decodeSet(Buffer.from(encodeSet(set)), forged)).toEqual({
    why: expect.stringContaining("head: bad_signature"),
  });
});

test("a set whose document is not the one its head names is refused", () => {
  const mixed = { ...setOf(5), messages: setOf(4).messages };
  expect(decodeSet(Buffer.from(encodeSet(mixed)), keys)).toEqual({
    why: expect.stringContaining("not the one its head names"),
  });
});

test("a burst of sets leaves the last one", async () => {
  const writer = new SetWriter(folder, undefined, () => {});
  for (let rev = 1; rev <= 50; rev++) writer.write(setOf(rev));
  await writer.settled();
  expect(loadSet(folder, keys).set?.rev).toBe(50);
});
