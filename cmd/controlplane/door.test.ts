import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { connect as connectPlain, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect, type TLSSocket } from "node:tls";
import { openAuthority } from "../../src/identity/ca.ts";
import { createLogger } from "../../src/telemetry/log.ts";
import { Metrics } from "../../src/telemetry/metrics.ts";
import type { ControlplaneOptions } from "../options.ts";
import { ApiDoor } from "./door.ts";

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  server.close();
  return typeof address === "object" && address !== null ? address.port : 0;
}

/** A connection that trusts only the mesh's root, as every caller does. */
async function connected(port: number, ca: string): Promise<TLSSocket> {
  const servername = "controlplane.weft";
  const socket = connect({ host: "127.0.0.1", port, ca, servername });
  await new Promise<void>((resolve, reject) => {
    socket.once("secureConnect", resolve).once("error", reject);
  });
  return socket;
}

function ask(socket: TLSSocket): Promise<string> {
  socket.write("GET / HTTP/1.1\r\nHost: controlplane.weft\r\n\r\n");
  return new Promise((resolve) => socket.once("data", (bytes) => resolve(bytes.toString())));
}

test("the API's certificate renews itself, connections made before live on, and refusals count", async () => {
  const folder = mkdtempSync(join(tmpdir(), "weft-door-"));
  const authority = await openAuthority(folder, "weft.local", Date.now);
  const port = await freePort();
  const options: ControlplaneOptions = {
    ...{ data: folder, bind: "127.0.0.1", portBase: port - 10, trustDomain: "weft.local" },
    ...{ restored: false, svidTtlMs: 2_000, drainMs: 0, log: "json", logLevel: "error" },
    version: "test",
  };
  const metrics = new Metrics();
  const log = createLogger({ format: "json", level: "error", now: Date.now, write: () => {} });
  await using opened = new AsyncDisposableStack();
  opened.defer(() => rmSync(folder, { recursive: true, force: true }));
  const door = await ApiDoor.open({ options, authority, log, metrics, now: Date.now }, opened);
  const told: string[] = [];
  door.renewed((svid) => told.push(svid.chainPem));
  const ca = authority.bundle.join("");
  const first = await connected(port, ca);
  const serials = new Set([first.getPeerCertificate().serialNumber]);
  const end = Date.parse(first.getPeerCertificate().valid_to);
  while (Date.now() <= end + 100) {
    // Refused by TLS if what is shown had ended.
    const later = await connected(port, ca);
    serials.add(later.getPeerCertificate().serialNumber);
    later.destroy();
    await Bun.sleep(100);
  }
  expect(serials.size).toBeGreaterThan(1);
  expect(told.length).toBeGreaterThanOrEqual(serials.size - 1);
  expect(await ask(first)).toStartWith("HTTP/1.1 503");
  first.destroy();
  const malformed = await connected(port, ca);
  malformed.write("GET / HTTP/1.1\r\n\r\n");
  await new Promise((resolve) => malformed.once("close", resolve).resume());
  const plain = connectPlain(port, "127.0.0.1").on("error", () => {});
  plain.write("GET / HTTP/1.1\r\n\r\n");
  await new Promise((resolve) => plain.once("close", resolve).resume());
  const counted = metrics.render();
  expect(counted).toContain('weft_controlplane_requests_refused_total{code="bad_request"} 1\n');
  expect(counted).toContain('weft_controlplane_handshakes_refused_total{reason="not_tls"} 1\n');
}, 15_000);
