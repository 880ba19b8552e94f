import { expect, test } from "bun:test";
import golden from "../../test/fixtures/contracts/process.json" with { type: "json" };
import type { LogLevel } from "../telemetry/log.ts";
import { createAdmin, createAdminSocket, type ReadyCheck } from "./admin.ts";

const good: ReadyCheck = { name: "identity", ok: true, detail: "spiffe://weft.local/ns/a/sa/b" };
const bad: ReadyCheck = { name: "application", ok: false, detail: "127.0.0.1:8080 refuses" };

function facts(...checks: readonly ReadyCheck[]) {
  return { metrics: () => "weft_up 1\n", checks: () => checks };
}

test("ready says so, and lists its checks when asked", async () => {
  const app = createAdmin(facts(good));
  const brief = await app.request("/readyz");
  expect([brief.status, await brief.text()]).toEqual([200, "ready\n"]);
  const verbose = await (await app.request("/readyz?verbose")).text();
  expect(verbose).toBe("ready\n[+] identity: spiffe://weft.local/ns/a/sa/b\n");
});

test("not ready says what is missing; health stays good", async () => {
  const app = createAdmin(facts(good, bad));
  const answer = await app.request("/readyz");
  expect(answer.status).toBe(503);
  expect(await answer.text()).toBe("not ready: application: 127.0.0.1:8080 refuses\n");
  expect((await app.request("/healthz")).status).toBe(200);
});

test("golden: health and readiness in the words other programs know", async () => {
  const told = async (path: string, ...checks: readonly ReadyCheck[]) => {
    const answer = await createAdmin(facts(...checks)).request(path);
    return { status: answer.status, body: await answer.text() };
  };
  const { status, body, verbose, checks } = golden.notReady;
  expect(await told("/healthz", ...checks)).toEqual(golden.healthz);
  expect(await told("/readyz", good)).toEqual(golden.ready);
  expect(await told("/readyz", ...checks)).toEqual({ status, body });
  expect(await told("/readyz?verbose", ...checks)).toEqual({ status, body: verbose });
});

test("metrics carry the content type of the text format", async () => {
  const answer = await createAdmin(facts()).request("/metrics");
  expect(answer.headers.get("content-type")).toContain("version=0.0.4");
  expect(await answer.text()).toBe("weft_up 1\n");
});

test("the socket changes what may be changed", async () => {
  let level: LogLevel = "info";
  let drained = 0;
  const app = createAdminSocket(facts(), {
    configDump: () => ({ epoch: 1 }),
    drain: () => {
      drained += 1;
    },
    logLevel: () => level,
    setLogLevel: (next) => {
      level = next;
    },
  });
  expect(await (await app.request("/config")).json()).toEqual({ epoch: 1 });
  expect((await app.request("/drain", { method: "POST" })).status).toBe(202);
  expect(drained).toBe(1);
  expect((await app.request("/log-level/debug", { method: "PUT" })).status).toBe(200);
  expect(level as LogLevel).toBe("debug");
  expect((await app.request("/log-level/loud", { method: "PUT" })).status).toBe(400);
  expect((await app.request("/drain")).status).toBe(404);
});
