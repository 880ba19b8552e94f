import { afterAll, expect, test } from "bun:test";
import { once } from "node:events";
import type { TestWorkload } from "./mesh.fixture.ts";
import { caller, newPlane, serve, stopAll, talk } from "./servers.fixture.ts";

afterAll(stopAll);

/** `web` calls `app`: one instance answers, the application of the other is away. No retries. */
function half(): TestWorkload {
  const plane = newPlane();
  const port = serve(async () => {
    await Bun.sleep(5);
    return new Response("ok");
  });
  plane.workload("app", [{ servicePort: 80, host: "127.0.0.1", port }]);
  const gone = newPlane();
  gone.workload("app", [{ servicePort: 80, host: "127.0.0.1", port: 1 }]);
  const retries = {
    ...{ attempts: 0, on: [], codes: [], backoffMs: 1 },
    ...{ budgetPercent: 20, budgetMinConcurrency: 3 },
  };
  const endpoints = [plane.endpoint("app"), { ...plane.endpoint("app"), meshPort: gone.meshPort }];
  return caller(plane, [{ service: "app", port: 80, policy: { retries }, endpoints }]);
}

async function failures(web: TestWorkload, count: number): Promise<number> {
  const ask = async () => (await fetch(web.url, { headers: { host: "app" } })).status;
  const statuses = await Promise.all(Array.from({ length: count }, ask));
  return statuses.filter((status) => status !== 200).length;
}

/** The same, by callers that are all connected before the first asks. */
async function failuresAtOnce(web: TestWorkload, count: number): Promise<number> {
  const callers = Array.from({ length: count }, () => talk(web.outbound, ""));
  await Promise.all(callers.map(({ socket }) => once(socket, "connect")));
  for (const { socket } of callers) {
    socket.write("GET / HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n");
  }
  const heard = await Promise.all(callers.map((one) => one.heard));
  return heard.filter(({ text }) => !text.startsWith("HTTP/1.1 200 ")).length;
}

test("an instance whose application is away fails one request, not its share of all", async () => {
  const web = half();
  let failed = 0;
  for (let i = 0; i < 40; i++) failed += await failures(web, 1);
  expect(failed).toBe(1);
});

test("when its time is over it is tried with one request, not with all that come at once", async () => {
  const web = half();
  let failed = 0;
  for (let i = 0; i < 40 && failed === 0; i++) failed += await failures(web, 1);
  expect(failed).toBe(1);
  await Bun.sleep(1050);
  expect(await failures(web, 20)).toBe(1);
});

test("many failures at once count as one: a second later it may be back", async () => {
  const web = half();
  // All of them start before the first has failed.
  expect(await failuresAtOnce(web, 20)).toBeGreaterThan(1);
  await Bun.sleep(1050);
  let failed = 0;
  for (let i = 0; i < 40; i++) failed += await failures(web, 1);
  expect(failed).toBe(1);
});
