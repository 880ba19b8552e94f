import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { restoreBackup, STORE_FILE, writeBackup } from "./backup.ts";
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
