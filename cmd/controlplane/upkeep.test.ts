import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { certificatesOf, putCertificate } from "../../src/store/certificates.ts";
import { openStore } from "../../src/store/store.ts";
import { listWorkloads, putJoined, putRegistration } from "../../src/store/workloads.ts";
import { forget } from "./upkeep.ts";

const DAY_MS = 86_400_000;

test("only instances without registration and without a valid certificate are forgotten", () => {
  const folder = mkdtempSync(join(tmpdir(), "weft-upkeep-"));
  const store = openStore(join(folder, "weft.db"));
  for (const [instance, notAfter] of [
    ["expired", 100],
    ["valid", 30 * DAY_MS],
    ["registered", 100],
  ] as const) {
    const identity = "spiffe://weft.local/ns/default/sa/cart";
    const names = { namespace: "default", service: "cart", serviceAccount: "cart" };
    putJoined(store, { instance, ...names, identity, tokenId: "t", joinedAt: 1 });
    const times = { notBefore: 0, notAfter, issuedAt: 0 };
    putCertificate(store, { serial: instance, instance, identity, ...times });
  }
  putRegistration(store, "registered", {
    ...{ boot: "b", shard: 0, registration: "{}", registeredAt: 1, lastSeen: 1 },
  });
  forget(store, 1000);
  expect(listWorkloads(store).map((row) => row.instance)).toEqual(["registered", "valid"]);
  expect(certificatesOf(store, "expired")).toHaveLength(1);
  forget(store, 8 * DAY_MS);
  expect(certificatesOf(store, "expired")).toEqual([]);
  expect(certificatesOf(store, "valid")).toHaveLength(1);
  store.close();
  rmSync(folder, { recursive: true });
});
