import { Database } from "bun:sqlite";
import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { restoreBackup, STORE_FILE, tidyFolder, writeBackup } from "./backup.ts";
import { lockFolder } from "./lock.ts";
import { putSetting, setting } from "./settings.ts";
import { openStore } from "./store.ts";

let folder: string;
let backup: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "weft-backup-"));
  backup = join(folder, "backup");
  const store = openStore(join(folder, STORE_FILE));
  putSetting(store, "epoch", 7);
  writeFileSync(join(folder, "admin.token"), "secret", { mode: 0o600 });
  writeBackup(store, backup, folder);
  store.close();
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

test("a restored store says so, and its keys are back", () => {
  const to = join(folder, "to");
  expect(restoreBackup(backup, to)).toEqual({ withKeys: true });
  expect(readFileSync(join(to, "admin.token"), "utf8")).toBe("secret");
  const store = openStore(join(to, STORE_FILE));
  expect([setting(store, "epoch"), setting(store, "restored")]).toEqual(["7", "1"]);
  store.close();
});

test("a folder in use, or one with a store, is left alone", () => {
  const to = join(folder, "to");
  const lock = lockFolder(folder);
  expect(() => restoreBackup(backup, folder)).toThrow("already uses");
  lock.release();
  expect(() => restoreBackup(backup, folder)).toThrow("exists");
  expect(existsSync(to)).toBe(false);
});

test("what is no intact backup leaves nothing behind", () => {
  const to = join(folder, "to");
  expect(() => restoreBackup(join(folder, "nothing"), to)).toThrow("cannot read");
  expect(existsSync(to)).toBe(false);
  const bytes = readFileSync(backup);
  writeFileSync(backup, bytes.fill(0x5a, 4096, 16_384));
  expect(() => restoreBackup(backup, to)).toThrow("not an intact backup");
  writeFileSync(backup, "hello");
  expect(() => restoreBackup(backup, to)).toThrow("not an intact backup");
  expect(readdirSync(to)).toEqual(["lock.db"]);
});

test("an existing target is not written over", () => {
  const store = openStore(join(folder, STORE_FILE));
  const before = readFileSync(backup);
  expect(() => writeBackup(store, backup)).toThrow();
  expect(readFileSync(backup).equals(before)).toBe(true);
  store.close();
});

test("a restore that was killed is not taken for a new mesh, and can be repeated", () => {
  const to = join(folder, "to");
  restoreBackup(backup, to);
  // As it is before the last step: keys are there, the store still has its other name.
  const target = join(to, STORE_FILE);
  renameSync(target, `${target}.new`);
  expect(() => tidyFolder(to)).toThrow("was not finished");
  // A log of the killed one would be replayed into the new copy.
  const stale = openStore(join(folder, "stale.db"));
  putSetting(stale, "epoch", 99);
  copyFileSync(join(folder, "stale.db-wal"), `${target}.new-wal`);
  stale.close();
  restoreBackup(backup, to);
  tidyFolder(to);
  const store = openStore(target);
  expect(setting(store, "epoch")).toBe("7");
  store.close();
});

test("keys of another mesh are not replaced", () => {
  const to = join(folder, "to");
  const root = join("ca", "root.pem");
  for (const [at, text] of [
    [folder, "root of one"],
    [to, "root of another"],
  ] as const) {
    mkdirSync(join(at, "ca"), { recursive: true });
    writeFileSync(join(at, root), text);
  }
  rmSync(backup);
  const store = openStore(join(folder, STORE_FILE));
  writeBackup(store, backup, folder);
  store.close();
  expect(() => restoreBackup(backup, to)).toThrow("another mesh");
  expect(readFileSync(join(to, root), "utf8")).toBe("root of another");
  expect(existsSync(join(to, "admin.token"))).toBe(false);
  writeFileSync(join(to, root), "root of one");
  expect(restoreBackup(backup, to)).toEqual({ withKeys: true });
});

test("a backup of a newer weft is refused, and one that was cut short", () => {
  const to = join(folder, "to");
  const bytes = readFileSync(backup);
  const newer = new Database(backup);
  newer.run("PRAGMA user_version = 99");
  newer.close();
  expect(() => restoreBackup(backup, to)).toThrow("newer weft");
  for (const length of [0, 50, 4096, bytes.length - 1, bytes.length - 4096]) {
    writeFileSync(backup, bytes.subarray(0, length));
    expect(() => restoreBackup(backup, to)).toThrow("not an intact backup");
  }
  expect(readdirSync(to)).toEqual(["lock.db"]);
});

test("what a killed backup left behind goes at the next start", () => {
  writeFileSync(join(folder, "backup-1b0cd1be.tmp"), "keys and all");
  tidyFolder(folder);
  expect(existsSync(join(folder, "backup-1b0cd1be.tmp"))).toBe(false);
  expect(existsSync(backup)).toBe(true);
});
