/** What callers have sent and nobody can use yet is held for them, and counts as such. */
import { afterAll, expect, test } from "bun:test";
import { pendingBytes } from "../net/connection.ts";
import {
  caller,
  eventually,
  newPlane,
  plainApp,
  serve,
  stopAll,
  talk,
  targetOf,
} from "./servers.fixture.ts";

afterAll(stopAll);

/** One connection in use makes the service busy: further bodies are waited for. */
const BUSY_SOON = { maxConnections: 16 };

const CALLERS = 60;
const BYTES = 59 * 1024;

const unfinished = {
  "heads that do not end": `GET / HTTP/1.1\r\nHost: app\r\nX: ${"y".repeat(BYTES)}`,
  "bodies that do not end": `POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 65000\r\n\r\n${"x".repeat(BYTES)}`,
  "TLS that does not begin": `\x16\x03\x01\x40\x00\x01\x00\x3f\xfc${"\0".repeat(16_000)}`,
};

for (const [what, text] of Object.entries(unfinished)) {
  test(`${what}: their bytes count, and who holds most makes way`, async () => {
    const port = serve(async (request) => new Response(await request.text()));
    const plane = newPlane({ pendingMax: (CALLERS * text.length) / 2, tickMs: 20 });
    const web = caller(plane, [plainApp([port], BUSY_SOON)]);
    const holders = Array.from({ length: CALLERS }, () => talk(web.outbound, text));
    const shed = () =>
      Number(/^weft_connections_shed_total (.+)/m.exec(plane.metrics.render())?.[1]);
    expect(await eventually(() => shed() > 0)).toBe(true);
    expect(await eventually(() => pendingBytes() <= (CALLERS * text.length) / 2)).toBe(true);
    expect(pendingBytes()).toBeGreaterThan(0);
    const answer = await fetch(web.url, {
      ...{ method: "POST", body: "served" },
      headers: { host: "app" },
    });
    expect(await answer.text()).toBe("served");
    for (const { socket } of holders) socket.destroy();
    expect(await eventually(() => pendingBytes() === 0)).toBe(true);
  });
}

test("what was used counts no more", async () => {
  const port = serve(async (request) => new Response(await request.text()));
  const plane = newPlane();
  const web = caller(plane, [plainApp([port], BUSY_SOON)]);
  const body = unfinished["bodies that do not end"];
  const busy = talk(web.outbound, body);
  const app = web.local.upstreams.destination(targetOf(web, "app"));
  expect(await eventually(() => app.active === 1)).toBe(true);
  const { socket } = talk(web.outbound, body);
  expect(await eventually(() => pendingBytes() >= BYTES)).toBe(true);
  socket.write("x".repeat(65_000 - BYTES));
  expect(await eventually(() => pendingBytes() === 0)).toBe(true);
  expect(socket.closed).toBe(false);
  socket.destroy();
  busy.socket.destroy();
});
