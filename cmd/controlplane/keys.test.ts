import { expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { putSetting } from "../../src/store/settings.ts";
import { openStore } from "../../src/store/store.ts";
import { putToken } from "../../src/store/tokens.ts";
import { keysOf } from "./keys.ts";

test("a key that is missing from a mesh that has begun is not made anew in silence", () => {
  const folder = mkdtempSync(join(tmpdir(), "weft-keys-"));
  const store = openStore(join(folder, "weft.db"));
  mkdirSync(join(folder, "keys"));
  expect(keysOf(store, folder, false)["ca.key"]).toBe(join(folder, "keys", "ca.key"));
  putToken(store, {
    ...{ id: "t", kind: "admin", secretHash: "h", scope: {}, description: "", createdBy: "x" },
    ...{ createdAt: 1, expiresAt: null, once: false, usedAt: null, revokedAt: null },
  });
  for (const name of ["ca.key", "nats.seed"]) writeFileSync(join(folder, "keys", name), "x");
  expect(() => keysOf(store, folder, false)).toThrow("config.key is missing");
  keysOf(store, folder, true);
  putSetting(store, "restored", 1);
  keysOf(store, folder, false);
  store.close();
  rmSync(folder, { recursive: true, force: true });
});
