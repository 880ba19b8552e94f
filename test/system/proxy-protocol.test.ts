/** PROXY headers with others at both ends: HAProxy or nginx in front of the mesh, nginx behind. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run, type Sidecar, TestMesh, takePorts, until } from "../harness/mesh.ts";

const folder = mkdtempSync(join(tmpdir(), "weft-header-"));
const nginx = takePorts(1);
/** nginx as a relay, which writes version 1. */
const relayed = takePorts(1);
const STREAM = "/usr/lib/nginx/modules/ngx_stream_module.so";
/** Ports of HAProxy, and the proxy's local ports that they lead to. */
const [plain, mail, web] = [takePorts(1), takePorts(1), takePorts(1)];
const [toPlain, toMail, toWeb] = [takePorts(1), takePorts(1), takePorts(1)];
const app = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response("web") });
let mesh: TestMesh;
let edge: Sidecar;

/** A server that expects a header, without a proxy and beside one; one for HTTP without any. */
const DOCUMENTS = `
apiVersion: weft.dev/v1
kind: Service
metadata: { name: plain }
spec: { ports: [{ port: 25, protocol: tcp }] }
---
apiVersion: weft.dev/v1
kind: Workload
metadata: { name: plain }
spec: { service: plain, address: 127.0.0.1, ports: { "25": ${nginx} } }
---
apiVersion: weft.dev/v1
kind: TrafficPolicy
metadata: { name: plain }
spec: { target: { service: plain }, proxyProtocol: { version: V1 } }
---
apiVersion: weft.dev/v1
kind: Service
metadata: { name: mail }
spec: { ports: [{ port: 25, protocol: tcp }] }
---
apiVersion: weft.dev/v1
kind: TrafficPolicy
metadata: { name: mail }
spec: { target: { service: mail }, proxyProtocol: { version: V2 } }
---
apiVersion: weft.dev/v1
kind: Service
metadata: { name: web }
spec: { ports: [{ port: 80, protocol: http }] }
---
apiVersion: weft.dev/v1
kind: Workload
metadata: { name: web }
spec: { service: web, address: 127.0.0.1, ports: { "80": ${app.port} } }
`;

beforeAll(async () => {
  const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    .map((name) => `${name}_temp_path ${folder}/${name};`)
    .join(" ");
  writeFileSync(
    join(folder, "nginx.conf"),
    `daemon off; pid ${folder}/pid; events {} http { access_log off; ${paths}
     server { listen 127.0.0.1:${nginx} proxy_protocol;
     location / { return 200 "$proxy_protocol_addr to $proxy_protocol_server_port"; } } }`,
  );
  writeFileSync(
    join(folder, "relay.conf"),
    `load_module ${STREAM}; daemon off; pid ${folder}/relay; events {} stream {
     server { listen 127.0.0.1:${relayed}; proxy_bind 127.0.0.2; proxy_protocol on;
     proxy_pass 127.0.0.1:${toPlain}; } }`,
  );
  const relay = (name: string, from: number, to: number) =>
    `listen ${name}\n mode tcp\n bind 127.0.0.1:${from}\n` +
    ` server s 127.0.0.1:${to} source 127.0.0.2 send-proxy-v2\n`;
  writeFileSync(
    join(folder, "haproxy.cfg"),
    "defaults\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n" +
      relay("plain", plain, toPlain) +
      relay("mail", mail, toMail) +
      relay("web", web, toWeb),
  );
  mesh = await TestMesh.start();
  mesh.spawn(["nginx", "-e", `${folder}/error`, "-c", `${folder}/nginx.conf`]);
  if (existsSync(STREAM))
    mesh.spawn(["nginx", "-e", `${folder}/error`, "-c", `${folder}/relay.conf`]);
  mesh.spawn(["haproxy", "-q", "-db", "-f", join(folder, "haproxy.cfg")]);
  await mesh.apply(DOCUMENTS);
  await mesh.sidecar({ service: "mail", app: [`25=${nginx}/tcp`] });
  edge = await mesh.sidecar({
    service: "edge",
    upstream: [`plain:${toPlain}`, `mail:${toMail}`, `web:${toWeb}`],
    args: ["--access-log=on", "--accept-proxy-protocol=127.0.0.2"],
  });
}, 60_000);

afterAll(async () => {
  await mesh?.stop();
  app.stop(true);
  rmSync(folder, { recursive: true, force: true });
});

/** What the server says; the caller has an address of its own. */
function get(port: number): Promise<string> {
  return until(`an answer by ${port}`, async () => {
    const from = ["--interface", "127.0.0.9", "-sf", "-m", "3"];
    const { code, stdout } = await run(["curl", ...from, `http://127.0.0.1:${port}/`]);
    return code === 0 && stdout;
  });
}

test("the caller's address passes a load balancer and a proxy to a server without one", async () => {
  expect(await get(plain)).toBe(`127.0.0.9 to ${plain}`);
  // From an address that announces nothing the caller is who it is.
  expect(await get(toPlain)).toBe(`127.0.0.9 to ${toPlain}`);
});

test("an application beside its proxy hears of the proxy that called", async () => {
  for (const port of [mail, toMail]) {
    expect(await get(port)).toMatch(/^127\.0\.0\.1 to \d+$/);
  }
});

test("the access log names callers behind the load balancer", async () => {
  expect(await get(web)).toBe("web");
  const line = await until("the line", () =>
    edge
      .output()
      .split("\n")
      .find((text) => text.includes('"client"')),
  );
  const { client, peer, status } = JSON.parse(line);
  expect([peer, status]).toEqual(["default/web", 200]);
  expect(client).toStartWith("127.0.0.9:");
});

test.skipIf(!existsSync(STREAM))(`nginx as the relay (by ${STREAM})`, async () => {
  expect(await get(relayed)).toBe(`127.0.0.9 to ${relayed}`);
});
