/** Plain callers, TLS servers outside of the mesh: what the proxy between them makes of it. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect as connectHttp2, createSecureServer } from "node:http2";
import { createServer as createHttps } from "node:https";
import type { Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createServer as createTls } from "node:tls";
import { type TestIdentity, testAuthority } from "../net/certificates.fixture.ts";
import type { TlsDocument } from "../snapshot/document.ts";
import { type ServiceSpec, snapshotOf, TestPlane } from "./mesh.fixture.ts";
import { eventually, newPlane, stopAll, talk } from "./servers.fixture.ts";

const ca = testAuthority("weft.test");
const good = ca.issue("api");
const NAME = "api.default.weft.test";
const SIMPLE: TlsDocument = { sni: NAME, ca: ca.root, names: [], verify: true };
const stops: (() => void)[] = [];
afterAll(() => {
  for (const stop of stops) stop();
  stopAll();
});

async function port(server: Server): Promise<number> {
  stops.push(() => server.close());
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as { port: number }).port;
}

let accepted = 0;
let served = 0;

/** Answers with what it saw of the connection. */
function https(identity: TestIdentity): Promise<number> {
  const server = createHttps({ cert: identity.cert, key: identity.key }, (request, response) => {
    const { servername } = request.socket as { servername?: string };
    served++;
    response.end(`${request.headers.host} ${servername} ${request.url}`);
  });
  server.on("secureConnection", () => accepted++);
  server.on("tlsClientError", () => {});
  return port(server);
}

function api(at: number, tls: TlsDocument | undefined, address = "127.0.0.1"): ServiceSpec {
  const endpoints = [{ address, ports: { "80": at } }];
  return { service: "api", port: 80, policy: tls === undefined ? {} : { tls }, endpoints };
}

test("plain HTTP goes on as HTTPS, over connections that are kept", async () => {
  const plane = newPlane();
  const web = plane.workload("web");
  web.snapshot.set(snapshotOf([api(await https(good), SIMPLE)]));
  accepted = 0;
  for (let i = 0; i < 5; i++) {
    const answer = await fetch(`${web.url}/a?b`, { headers: { host: "api" } });
    expect(await answer.text()).toBe(`api ${NAME} /a?b`);
  }
  expect(accepted).toBe(1);
  expect(plane.metrics.render()).toMatch(
    /weft_requests_total\{.*peer="default\/api",port="80",subset="",tls="tls",code="200",reason=""\} 5/,
  );
});

const HOUR = 3600;
const UNFIT: readonly (readonly [what: string, identity: TestIdentity, why: string])[] = [
  ["has expired", ca.flawed("api", { from: -2 * HOUR, to: -HOUR }), "certificate has expired"],
  ["is for another name", ca.issue("pay"), `not for ${NAME}`],
  ["is of another authority", testAuthority("x.test").issue("api"), "not signed by an authority"],
];

for (const [what, identity, why] of UNFIT) {
  test(`a server whose certificate ${what} gets no byte of the request`, async () => {
    const plane = newPlane();
    const web = plane.workload("web");
    const at = await https(identity);
    web.snapshot.set(snapshotOf([api(at, SIMPLE)]));
    served = 0;
    const answer = await fetch(web.url, { headers: { host: "api" } });
    expect(answer.status).toBe(503);
    expect(served).toBe(0);
    const text = await answer.text();
    expect(text).toStartWith(`connect_failed: cannot reach 127.0.0.1:${at}: `);
    expect(text).toContain(why);
    web.snapshot.set(snapshotOf([api(at, { ...SIMPLE, verify: false })]));
    expect((await fetch(web.url, { headers: { host: "api" } })).status).toBe(200);
    web.snapshot.set(snapshotOf([api(at, SIMPLE)]));
    // What was opened without looking serves nobody who wants to know.
    expect((await fetch(web.url, { headers: { host: "api" } })).status).toBe(503);
  });
}

test("certificates that are none are said, not thrown", async () => {
  const web = newPlane().workload("web");
  const broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
  web.snapshot.set(snapshotOf([api(await https(good), { ...SIMPLE, ca: broken })]));
  const answer = await fetch(web.url, { headers: { host: "api" } });
  expect(answer.status).toBe(503);
  expect(await answer.text()).toContain("the policy's certificates are unusable");
});

test("a name is resolved, sent and checked; addresses that fail are passed over", async () => {
  const answers: string[][] = [["127.0.0.2", "127.0.0.1"]];
  const plane = new TestPlane({
    lookup: async () => answers.at(-1) ?? [],
    forbidden: (address) => address === "127.0.0.3",
  });
  stops.push(() => plane.plane.stop());
  const web = plane.workload("web");
  const { sni: _, ...unnamed } = SIMPLE;
  const at = await https(good);
  web.snapshot.set(snapshotOf([api(at, unnamed, NAME)]));
  const ask = () => fetch(web.url, { headers: { host: "api", connection: "close" } });
  for (let i = 0; i < 4; i++) {
    const answer = await ask();
    expect(await answer.text()).toContain(` ${NAME} /`);
    web.snapshot.set(snapshotOf([api(at, { ...unnamed, names: i % 2 ? [] : [NAME] }, NAME)]));
  }
  answers.push(["127.0.0.3"]);
  web.snapshot.set(snapshotOf([api(at, unnamed, "else.weft.test")]));
  const refused = await ask();
  expect(refused.status).toBe(503);
  expect(await refused.text()).toContain("else.weft.test is an address of this host");
  answers.push([]);
  web.snapshot.set(snapshotOf([api(at, unnamed, "gone.weft.test")]));
  expect(await (await ask()).text()).toContain("gone.weft.test has no address");
});

test("a resolver that is silent costs the connect timeout, no more", async () => {
  const plane = new TestPlane({ lookup: () => new Promise(() => {}) });
  stops.push(() => plane.plane.stop());
  const web = plane.workload("web");
  const spec = api(1, undefined, "slow.weft.test");
  web.snapshot.set(snapshotOf([{ ...spec, policy: { connectTimeoutMs: 50 } }]));
  const answer = await fetch(web.url, { headers: { host: "api" } });
  expect(await answer.text()).toContain("the name was not resolved within 50 ms");
});

test("opaque TCP goes on as TLS, both ends closing in order", async () => {
  const server = createTls({ cert: good.cert, key: good.key, allowHalfOpen: true }, (socket) => {
    let text = "";
    socket.on("data", (chunk) => {
      text += chunk.toString();
    });
    socket.on("end", () => socket.end(`${text.toUpperCase()} ${socket.alpnProtocol}`));
  });
  const at = await port(server);
  const plane = newPlane();
  const web = plane.workload("web");
  const spec = { ...api(at, SIMPLE), protocol: "tcp" as const };
  web.snapshot.set(snapshotOf([spec]));
  const service = { namespace: "default", service: "api" };
  const upstream = plane.plane.listenUpstream(web.local, service, "127.0.0.1", 0);
  const { socket, heard } = talk(upstream, "hello");
  socket.end();
  expect(await heard).toEqual({ text: "HELLO false", ended: true, error: "" });
  const counted = /weft_tcp_connections_total\{.*peer="default\/api".*tls="tls",reason=""\} 1/;
  expect(await eventually(() => counted.test(plane.metrics.render()))).toBe(true);
  web.snapshot.set(snapshotOf([{ ...spec, policy: { tls: { ...SIMPLE, sni: "x.test" } } }]));
  expect(await talk(upstream, "secret").heard).toEqual({
    ...{ text: "", ended: false, error: "ECONNRESET" },
  });
  expect(plane.metrics.render()).toMatch(
    /weft_tcp_connections_total\{.*peer="default\/api".*tls="tls",reason="connect_failed"\} 1/,
  );
});

test("HTTP/2 of a caller goes on as HTTP/2 over TLS", async () => {
  const server = createSecureServer({ cert: good.cert, key: good.key }, (request, response) => {
    response.end(`${request.httpVersion} ${request.headers[":authority"]}`);
  });
  const at = await port(server);
  const plane = newPlane();
  const web = plane.workload("web");
  web.snapshot.set(snapshotOf([{ ...api(at, SIMPLE), protocol: "http2" }]));
  const service = { namespace: "default", service: "api" };
  const upstream = plane.plane.listenUpstream(web.local, service, "127.0.0.1", 0);
  const client = connectHttp2(`http://127.0.0.1:${upstream}`);
  const stream = client.request({ ":path": "/", ":authority": "api.test" });
  let text = "";
  for await (const chunk of stream) text += String(chunk);
  client.close();
  expect(text).toBe("2.0 api.test");
});

test("endpoints of the mesh keep mutual TLS whatever the policy says", async () => {
  const plane = newPlane();
  const app = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response("cart") });
  stops.push(() => void app.stop(true));
  plane.workload("cart", [{ servicePort: 80, host: "127.0.0.1", port: app.port ?? 0 }]);
  const web = plane.workload("web");
  const policy = { tls: { ...SIMPLE, verify: false } };
  const cart = { service: "cart", port: 80, policy, endpoints: [plane.endpoint("cart")] };
  web.snapshot.set(snapshotOf([cart]));
  const answer = await fetch(web.url, { headers: { host: "cart" } });
  expect(await answer.text()).toBe("cart");
  expect(plane.metrics.render()).toMatch(/peer="default\/cart",.*tls="mtls",code="200"/);
});

test("nginx and openssl at the other end, TLS 1.2 alone", async () => {
  const folder = mkdtempSync(join(tmpdir(), "weft-nginx-"));
  stops.push(() => rmSync(folder, { recursive: true, force: true }));
  writeFileSync(join(folder, "cert.pem"), good.cert);
  writeFileSync(join(folder, "key.pem"), good.key);
  const probe = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const at = probe.port;
  probe.stop(true);
  writeFileSync(
    join(folder, "nginx.conf"),
    `daemon off; pid ${folder}/pid; error_log ${folder}/error;
     events {} http { access_log off; client_body_temp_path ${folder}/b; proxy_temp_path ${folder}/p;
     fastcgi_temp_path ${folder}/f; uwsgi_temp_path ${folder}/u; scgi_temp_path ${folder}/s;
     server { listen 127.0.0.1:${at} ssl; server_name ${NAME}; ssl_protocols TLSv1.2;
     ssl_certificate ${folder}/cert.pem; ssl_certificate_key ${folder}/key.pem;
     location / { return 200 "$ssl_protocol $ssl_server_name $ssl_alpn_protocol"; } } }`,
  );
  const nginx = Bun.spawn(["nginx", "-e", `${folder}/error`, "-c", `${folder}/nginx.conf`], {
    ...{ stdout: "ignore", stderr: "ignore" },
  });
  stops.push(() => nginx.kill());
  const web = newPlane().workload("web");
  web.snapshot.set(snapshotOf([api(at, SIMPLE)]));
  let text = "";
  for (let i = 0; i < 50 && !text.startsWith("TLS"); i++) {
    await Bun.sleep(50);
    text = await (await fetch(web.url, { headers: { host: "api" } })).text();
  }
  expect(text).toBe(`TLSv1.2 ${NAME} http/1.1`);
});
