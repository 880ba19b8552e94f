import { afterEach, expect, test } from "bun:test";
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Resource } from "../config/resource.ts";
import { Failure } from "../error.ts";
import { appendAudit, brokenAudit, listAudit } from "./audit.ts";
import { publishedDocuments, putPublished } from "./documents.ts";
import { lockFolder } from "./lock.ts";
import { allResources, lastRevision, listRevisions, putRevision } from "./revisions.ts";
import { putSetting, setting } from "./settings.ts";
import { openStore, requirePresent } from "./store.ts";
import { putToken, revokeToken, useToken } from "./tokens.ts";
import { putGrant, putJoined, putRegistration, shardSizes, workload } from "./workloads.ts";

const folders: string[] = [];

function folder(): string {
  const made = mkdtempSync(join(tmpdir(), "weft-store-"));
  folders.push(made);
  return made;
}

afterEach(() => {
  for (const made of folders.splice(0)) rmSync(made, { recursive: true, force: true });
});

function service(name: string): Resource {
  return {
    apiVersion: "weft.dev/v1",
    kind: "Service",
    metadata: { name, namespace: "default", labels: {} },
    spec: { ports: [{ port: 8080 }] },
  };
}

function failureOf(act: () => unknown): Failure {
  try {
    act();
  } catch (error) {
    if (error instanceof Failure) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

const create = (name: string) => ({
  author: "test",
  message: "",
  t: 1,
  changes: [{ key: `Service/default/${name}`, op: "create" as const, after: service(name) }],
});

test("revisions and documents survive a new start", () => {
  const path = join(folder(), "weft.db");
  const store = openStore(path);
  expect(putRevision(store, create("cart")).number).toBe(1);
  expect(putRevision(store, create("db")).number).toBe(2);
  putSetting(store, "epoch", 3);
  store.close();
  const again = openStore(path);
  expect(allResources(again).map((row) => row.key)).toEqual([
    "Service/default/cart",
    "Service/default/db",
  ]);
  expect(listRevisions(again).map((row) => row.number)).toEqual([2, 1]);
  expect(setting(again, "epoch")).toBe("3");
  again.close();
  expect(statSync(path).mode & 0o777).toBe(0o600);
});

test("a failing transaction leaves nothing behind, an asynchronous one is refused", () => {
  const store = openStore(join(folder(), "weft.db"));
  const broken = () =>
    store.write(() => {
      putRevision(store, create("cart"));
      throw new Error("halfway");
    });
  expect(broken).toThrow("halfway");
  expect(lastRevision(store)).toBe(0);
  expect(() => store.write(() => Promise.resolve(putRevision(store, create("x"))))).toThrow(
    "synchronous",
  );
  expect(allResources(store)).toEqual([]);
  putRevision(store, create("cart"));
  expect(lastRevision(store)).toBe(1);
  store.close();
});

test("damage is found at start wherever it is", () => {
  const path = join(folder(), "weft.db");
  const store = openStore(path);
  for (let i = 0; i < 200; i++) putRevision(store, create(`cart-${i}`));
  putPublished(
    store,
    Array.from({ length: 100 }, (_, i) => ({
      ...{ key: `out.default.s${i}`, op: "put" as const, epoch: 1, rev: i, t: 1 },
      body: "x".repeat(3000),
    })),
  );
  expect(publishedDocuments(store)).toHaveLength(100);
  store.close();
  const intact = readFileSync(path);
  const pages = intact.length / 4096;
  expect(pages).toBeGreaterThan(60);
  for (let i = 0; i < 20; i++) {
    const bytes = Buffer.from(intact);
    bytes.fill(0xa5, Math.floor((i * pages) / 20) * 4096, Math.floor((i * pages) / 20 + 1) * 4096);
    writeFileSync(path, bytes);
    const failure = failureOf(() => openStore(path));
    expect(failure.code).toBe("store_corrupt");
    expect(failure.fix).toContain("weft restore");
  }
});

test("one changed letter inside a document is found at start", () => {
  const path = join(folder(), "weft.db");
  const store = openStore(path);
  putRevision(store, create("cart"));
  store.close();
  const bytes = readFileSync(path);
  const at = bytes.indexOf('"port":8080');
  bytes[at + 7] = 0x39;
  writeFileSync(path, bytes);
  expect(failureOf(() => openStore(path)).code).toBe("store_corrupt");
});

test("a file that is no database is refused and kept", () => {
  const path = join(folder(), "weft.db");
  writeFileSync(path, "this is a letter to my aunt, not a database\n".repeat(200));
  expect(failureOf(() => openStore(path)).code).toBe("store_corrupt");
  expect(readFileSync(path, "utf8")).toStartWith("this is a letter");
});

test("a deleted file is noticed", () => {
  const path = join(folder(), "weft.db");
  const store = openStore(path);
  requirePresent(store);
  unlinkSync(path);
  expect(failureOf(() => requirePresent(store)).code).toBe("store_missing");
  store.close();
});

test("a folder that is none cannot be used", () => {
  const file = join(folder(), "file");
  writeFileSync(file, "");
  expect(failureOf(() => openStore(join(file, "weft.db"))).code).toBe("store_unwritable");
  expect(failureOf(() => lockFolder(file)).code).toBe("store_unwritable");
  const damaged = join(folder(), "damaged");
  mkdirSync(damaged);
  writeFileSync(join(damaged, "lock.db"), "x".repeat(5000));
  expect(failureOf(() => lockFolder(damaged)).fix).toEndWith("lock.db");
});

test("the lock keeps a second process out, and dies with its holder", async () => {
  const data = folder();
  const script = `
    import { lockFolder } from ${JSON.stringify(join(import.meta.dir, "lock.ts"))};
    globalThis.held = lockFolder(${JSON.stringify(data)});
    console.log("held");
    setInterval(() => {}, 1000);
  `;
  const child = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe" });
  try {
    await child.stdout.getReader().read();
    expect(failureOf(() => lockFolder(data)).code).toBe("data_in_use");
  } finally {
    child.kill("SIGKILL");
    await child.exited;
  }
  lockFolder(data).release();
});

test("a one-time token is used once, a revoked one never", () => {
  const store = openStore(join(folder(), "weft.db"));
  const row = {
    ...{ id: "a", kind: "join" as const, secretHash: "", scope: {}, description: "" },
    ...{ createdBy: "test", createdAt: 1, expiresAt: null, once: true },
    ...{ usedAt: null, revokedAt: null },
  };
  putToken(store, row);
  expect(useToken(store, "a", 5)).toBe(true);
  expect(useToken(store, "a", 6)).toBe(false);
  putToken(store, { ...row, id: "b", once: false });
  expect([useToken(store, "b", 5), useToken(store, "b", 6)]).toEqual([true, true]);
  expect([revokeToken(store, "b", 7), revokeToken(store, "b", 8)]).toEqual([true, false]);
  expect(useToken(store, "b", 9)).toBe(false);
  store.close();
});

test("registrations need a join, and count towards their shard", () => {
  const store = openStore(join(folder(), "weft.db"));
  const fields = { boot: "1", shard: 1, registration: "{}", registeredAt: 2, lastSeen: 2 };
  expect(putRegistration(store, "i1", fields)).toBe(false);
  putJoined(store, {
    ...{ instance: "i1", namespace: "default", service: "cart", serviceAccount: "cart" },
    ...{ identity: "spiffe://weft.local/ns/default/sa/cart", tokenId: "a", joinedAt: 1 },
  });
  putGrant(store, "i1", { namespace: "default", service: "db" }, 3);
  expect(putRegistration(store, "i1", fields)).toBe(true);
  expect(workload(store, "i1")?.shard).toBe(1);
  expect(shardSizes(store, "default", "cart")).toEqual([0, 1]);
  store.close();
});

test("the audit chain shows where it was broken", () => {
  const path = join(folder(), "weft.db");
  const store = openStore(path);
  for (const subject of ["a", "b", "c"]) {
    appendAudit(store, { t: 1, actor: "test", action: "apply", subject });
  }
  expect(listAudit(store).map((entry) => entry.seq)).toEqual([1, 2, 3]);
  expect(brokenAudit(store)).toBeUndefined();
  store.db.run("UPDATE audit SET subject = 'x' WHERE seq = 2");
  expect(brokenAudit(store)).toBe(2);
  store.close();
});

test("all documents are read again after each change, and after one that was undone", () => {
  const store = openStore(join(folder(), "weft.db"));
  const names = () => allResources(store).map(({ key }) => key);
  const put = (name: string) => putRevision(store, create(name));
  put("a");
  expect(names()).toEqual(["Service/default/a"]);
  expect(allResources(store)).toBe(allResources(store));
  const undone = () =>
    store.write(() => {
      put("b");
      expect(names()).toEqual(["Service/default/a", "Service/default/b"]);
      throw new Error("undone");
    });
  expect(undone).toThrow("undone");
  expect(names()).toEqual(["Service/default/a"]);
  put("c");
  expect(names()).toEqual(["Service/default/a", "Service/default/c"]);
  store.close();
});
