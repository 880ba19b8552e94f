import { afterEach, expect, test } from "bun:test";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Failure } from "../../src/error.ts";
import { type Listener, listen } from "../../src/net/listen.ts";
import { type AppHealth, AppProbe } from "./app-health.ts";
import { bindExactly, bindNext } from "./ports.ts";

const open: Listener[] = [];

function bind(port: number, host = "127.0.0.1"): Listener {
  const listener = listen({ host, port, accept: (c) => c.handler });
  open.push(listener);
  return listener;
}

afterEach(() => {
  for (const listener of open.splice(0)) listener.closeAll();
});

function failureOf(act: () => unknown): Failure {
  try {
    act();
  } catch (error) {
    if (error instanceof Failure) return error;
  }
  throw new Error("no Failure");
}

test("a busy port is an error where its number matters, else the next is taken", () => {
  const { port } = bind(0);
  const busy = failureOf(() =>
    bindExactly("the port", "127.0.0.1", port, "--upstream", () => bind(port)),
  );
  expect(busy.code).toBe("port_busy");
  expect(busy.message).toContain(`127.0.0.1:${port}`);
  expect(busy.fix).toContain("another port with --upstream");
  expect(bindNext("the port", "127.0.0.1", port, (next) => bind(next)).port).toBeGreaterThan(port);
});

test("an address of another host is told apart", () => {
  const wrong = failureOf(() => bindNext("it", "192.0.2.1", 0, (p) => bind(p, "192.0.2.1")));
  expect(wrong.code).toBe("address_not_here");
});

async function health(probe: AppProbe, ok: boolean): Promise<string> {
  for (let n = 0; n < 400 && probe.value.ok !== ok; n++) await Bun.sleep(10);
  expect(probe.value.ok).toBe(ok);
  return probe.value.detail;
}

test("an application is well while it accepts, and not before or after", async () => {
  const changes: AppHealth[] = [];
  const { port } = bind(0);
  open.splice(0)[0]?.closeAll();
  const app = [{ servicePort: 80, host: "127.0.0.1", port }];
  const late: string[] = [];
  const probe = new AppProbe({
    ...{ app, probe: "tcp", changed: (it) => changes.push(it), late: (it) => late.push(it) },
  });
  const refuses = `127.0.0.1:${port} refuses`;
  for (let n = 0; n < 400 && late.length === 0; n++) await Bun.sleep(10);
  expect(probe.value).toEqual({ ok: false, detail: refuses });
  bind(port);
  expect(await health(probe, true)).toBe("answers");
  open.splice(0)[0]?.closeAll();
  expect(await health(probe, false)).toBe(`127.0.0.1:${port} refuses`);
  expect(changes.map(({ ok }) => ok)).toEqual([true, false]);
  expect(late).toEqual([refuses]);
  probe.stop();
}, 10_000);

test("a health path counts by its status", async () => {
  let status = 503;
  const server = createServer((_, response) => response.writeHead(status).end());
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address() as AddressInfo;
  const app = [{ servicePort: 80, host: "127.0.0.1", port }];
  const probe = new AppProbe({ app, probe: "/health", changed: () => {}, late: () => {} });
  await Bun.sleep(50);
  expect(probe.value.detail).toBe(`GET http://127.0.0.1:${port}/health gives 503`);
  status = 204;
  await health(probe, true);
  probe.stop();
  server.close();
});

test("without ports or without a probe there is nothing to wait for", () => {
  const app = [{ servicePort: 80, host: "127.0.0.1", port: 1 }];
  expect(new AppProbe({ app, probe: "none", changed: () => {}, late: () => {} }).value.ok).toBe(
    true,
  );
  expect(new AppProbe({ app: [], probe: "tcp", changed: () => {}, late: () => {} }).value.ok).toBe(
    true,
  );
});
