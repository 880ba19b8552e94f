/** Servers outside the mesh and TLS passed through it: real proxies, nginx and curl. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { testAuthority } from "../../src/net/certificates.fixture.ts";
import {
  ask,
  metrics,
  run,
  type Sidecar,
  sumMetric,
  TestMesh,
  takePorts,
  until,
} from "../harness/mesh.ts";

const HOST = "api.weft.test";
const authority = testAuthority("weft.test");
const folder = mkdtempSync(join(tmpdir(), "weft-outside-"));
const port = takePorts(1);
let mesh: TestMesh;
let web: Sidecar;

/** The service `api`: one server at this machine, which stands for one far away. */
const api = (tls: string) => `
apiVersion: weft.dev/v1
kind: Service
metadata: { name: api }
spec: { ports: [{ port: 80, protocol: http }, { port: 443, protocol: tls }], hosts: [${HOST}] }
---
apiVersion: weft.dev/v1
kind: Workload
metadata: { name: api }
spec: { service: api, address: 127.0.0.1, ports: { "80": ${port}, "443": ${port} } }
---
apiVersion: weft.dev/v1
kind: TrafficPolicy
metadata: { name: api }
spec:
  target: { service: api, port: 80 }
  tls:
    mode: SIMPLE
    sni: ${HOST}
${tls}`;

const given = `    caCertificates: |\n${authority.root.trim().replace(/^/gm, "      ")}\n`;

beforeAll(async () => {
  const { cert, key } = authority.flawed("api", { names: `DNS:${HOST},DNS:api.default.mesh` });
  writeFileSync(join(folder, "cert.pem"), cert);
  writeFileSync(join(folder, "key.pem"), key);
  writeFileSync(join(folder, "root.pem"), authority.root);
  const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    .map((name) => `${name}_temp_path ${folder}/${name};`)
    .join(" ");
  writeFileSync(
    join(folder, "nginx.conf"),
    `daemon off; pid ${folder}/pid; events {} http { access_log off; ${paths}
     ssl_protocols TLSv1.2 TLSv1.3;
     server { listen 127.0.0.1:${port} ssl; ssl_certificate ${folder}/cert.pem;
     ssl_certificate_key ${folder}/key.pem;
     location / { return 200 "$host $ssl_server_name $ssl_protocol"; } } }`,
  );
  mesh = await TestMesh.start();
  mesh.spawn(["nginx", "-e", `${folder}/error`, "-c", `${folder}/nginx.conf`]);
  await mesh.apply(api(given));
  web = await mesh.sidecar({ service: "web" });
}, 60_000);

afterAll(async () => {
  await mesh?.stop();
  rmSync(folder, { recursive: true, force: true });
});

test("plain HTTP becomes verified HTTPS, under the server's own name", async () => {
  const answer = await until("nginx answers", async () => {
    const response = await ask(web.outbound, HOST);
    return response.ok && response.text();
  });
  expect(answer).toBe(`${HOST} ${HOST} TLSv1.3`);
  expect(await (await ask(web.outbound, "api:80")).text()).toBe(`api ${HOST} TLSv1.3`);
  expect(sumMetric(await metrics(web), "weft_requests_total", { tls: "tls", code: "200" })).toBe(2);
});

test("a server that the host does not trust is refused, with what is wrong", async () => {
  await mesh.apply(api(""));
  const text = await until("the change is in force", async () => {
    const response = await ask(web.outbound, HOST);
    return response.status === 503 && response.text();
  });
  expect(text).toBe(
    `connect_failed: cannot reach 127.0.0.1:${port}: its certificate is not signed by an ` +
      "authority that is trusted here\n",
  );
  await mesh.apply(api(`    subjectAltNames: [other.weft.test]\n${given}`));
  const other = await until("the change is in force", async () => {
    const said = await (await ask(web.outbound, HOST)).text();
    return said.includes("certificate is for") && said;
  });
  expect(other).toContain(`is for ${HOST}, api.default.mesh, not for other.weft.test`);
  await mesh.apply(api(given));
});

test("a proxy trusts what its host trusts", async () => {
  await mesh.apply(api(""));
  process.env["SSL_CERT_FILE"] = join(folder, "root.pem");
  const trusting = await mesh.sidecar({ service: "trusting" }).finally(() => {
    delete process.env["SSL_CERT_FILE"];
  });
  const answer = await until("nginx answers", async () => {
    const response = await ask(trusting.outbound, HOST);
    return response.ok && response.text();
  });
  expect(answer).toBe(`${HOST} ${HOST} TLSv1.3`);
}, 30_000);

test("an application's own TLS is passed through by server name", async () => {
  const curl = (name: string) =>
    run([
      ...["curl", "-sS", "--max-time", "5", "--cacert", join(folder, "root.pem")],
      ...["--connect-to", `${name}:443:127.0.0.1:${web.outboundPort}`, `https://${name}/`],
    ]);
  for (const name of [HOST, "api.default.mesh"]) {
    expect((await curl(name)).stdout).toBe(`${name} ${name} TLSv1.3`);
  }
  const unknown = await curl("nobody.weft.test");
  expect(unknown.code).toBe(35);
  expect(unknown.stderr).toMatch(/unrecognized name/i);
  const wanted = { peer: "default/api", port: "443", tls: "none", reason: "" };
  await until("both are counted", async () => {
    return sumMetric(await metrics(web), "weft_tcp_connections_total", wanted) === 2;
  });
});
