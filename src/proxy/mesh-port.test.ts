/** What the mesh port does with strangers: no byte of theirs reaches an application. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Flaw, type TestIdentity, testAuthority } from "../net/certificates.fixture.ts";
import { authority, type TestPlane } from "./mesh.fixture.ts";
import { newPlane, type RawServer, rawServer, stopAll } from "./servers.fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "weft-mesh-port-"));
const OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const SNI = "p80.cart.default.weft.test";
let plane: TestPlane;
let app: RawServer;
let good: TestIdentity;

beforeAll(() => {
  plane = newPlane();
  app = rawServer({ data: (socket) => void socket.write(OK) });
  plane.workload("cart", [{ servicePort: 80, host: "127.0.0.1", port: app.port }]);
  good = authority.issue("web");
});

afterAll(() => {
  stopAll();
  rmSync(folder, { recursive: true, force: true });
});

interface Call {
  readonly identity?: TestIdentity;
  readonly sni?: string;
  readonly alpn?: string;
  readonly more?: readonly string[];
}

/** What OpenSSL says when it asks for `/`, everything as it should be but for `call`. */
async function call({ identity, sni, alpn, more }: Call): Promise<string> {
  const command = ["openssl", "s_client", "-connect", `127.0.0.1:${plane.meshPort}`, "-ign_eof"];
  if (identity !== undefined) {
    const file = join(folder, `${performance.now()}.pem`);
    writeFileSync(file, identity.cert + identity.key);
    command.push("-cert", file, "-key", file);
  }
  command.push(...(sni === "" ? ["-noservername"] : ["-servername", sni ?? SNI]));
  if (alpn !== "") command.push("-alpn", alpn ?? "http/1.1");
  const request = "GET / HTTP/1.1\r\nHost: cart\r\nConnection: close\r\n\r\n";
  const client = Bun.spawn([...command, ...(more ?? [])], {
    stdin: Buffer.from(request),
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, err] = await Promise.all([
    new Response(client.stdout).text(),
    new Response(client.stderr).text(),
  ]);
  await client.exited;
  return out + err;
}

function refused(): Record<string, number> {
  const result: Record<string, number> = {};
  const line = /^weft_handshakes_refused_total\{reason="(\w+)"\} (\d+)$/gm;
  for (const [, reason = "", count] of plane.metrics.render().matchAll(line)) {
    result[reason] = Number(count);
  }
  return result;
}

/** The call reaches nobody, and is counted under `reason`. */
async function expectRefused(what: Call, reason: string, alert?: RegExp): Promise<void> {
  const before = refused()[reason] ?? 0;
  const reached = app.accepted;
  const said = await call(what);
  expect(said).not.toContain("HTTP/1.1");
  if (alert !== undefined) expect(said).toMatch(alert);
  expect(app.accepted).toBe(reached);
  expect(refused()[reason] ?? 0).toBe(before + 1);
}

test("a caller of the mesh is served, whatever the case of the name", async () => {
  expect(await call({ identity: good })).toContain("HTTP/1.1 200");
  expect(await call({ identity: good, sni: SNI.toUpperCase() })).toContain("HTTP/1.1 200");
  const both = { identity: good, alpn: "weft-tcp,http/1.1,h2" };
  expect(await call(both)).toContain("HTTP/1.1 200");
});

const NAMES: readonly (readonly [what: string, sni: string])[] = [
  ["no name", ""],
  ["another port", "p81.cart.default.weft.test"],
  ["ssh", "p22.cart.default.weft.test"],
  ["the outbound port", "p17001.cart.default.weft.test"],
  ["the mesh port", "p17006.cart.default.weft.test"],
  ["the API", "p17010.cart.default.weft.test"],
  ["the metrics port", "p17020.cart.default.weft.test"],
  ["NATS", "p17222.cart.default.weft.test"],
  ["another service", "p80.web.default.weft.test"],
  ["another namespace", "p80.cart.other.weft.test"],
  ["another trust domain", "p80.cart.default.other.test"],
  ["no port", "cart.default.weft.test"],
  ["port 0", "p0.cart.default.weft.test"],
  ["a port with a zero before", "p080.cart.default.weft.test"],
  ["a port beyond 65535", "p65616.cart.default.weft.test"],
  ["one label more", "p80.a.cart.default.weft.test"],
  ["a dot at the end", "p80.cart.default.weft.test."],
  ["the control plane", "controlplane.weft"],
  ["__proto__", "p80.__proto__.default.weft.test"],
];

test.each(NAMES)("SNI for %s is an alert", async (_what, sni) => {
  await expectRefused({ identity: good, sni }, "unknown_server_name", /unrecognized name/);
});

test.each([
  ["none", ""],
  ["h2", "h2"],
  ["capitals", "HTTP/1.1"],
])("ALPN %s is an alert", async (_what, alpn) => {
  await expectRefused({ identity: good, alpn }, "no_protocol", /no application protocol/);
});

const FLAWS: readonly (readonly [what: string, flaw: Flaw, reason: string])[] = [
  ["expired", { from: -7200, to: -3600 }, "unverified"],
  ["not yet valid", { from: 3600 }, "unverified"],
  ["without a SPIFFE ID", { names: "DNS:web.default.weft.test" }, "identity"],
  ["with another URI", { names: "URI:https://weft.test/ns/default/sa/web" }, "identity"],
  [
    "with two SPIFFE IDs",
    { names: "URI:spiffe://weft.test/ns/default/sa/web,URI:spiffe://weft.test/ns/default/sa/a" },
    "identity",
  ],
  ["of another trust domain", { names: "URI:spiffe://other.test/ns/default/sa/web" }, "identity"],
  ["with another path", { names: "URI:spiffe://weft.test/ns/default/sa/web/x" }, "identity"],
  ["with an ID in capitals", { names: "URI:spiffe://weft.test/ns/Default/sa/web" }, "identity"],
  ["with the trust domain alone", { names: "URI:spiffe://weft.test" }, "identity"],
  ["for servers only", { usage: "serverAuth" }, "unverified"],
];

test.each(FLAWS)("a certificate %s gets nothing through", async (_what, flaw, reason) => {
  await expectRefused({ identity: authority.flawed("web", flaw) }, reason);
});

test("a certificate of another authority, or none, gets nothing through", async () => {
  await expectRefused({ identity: testAuthority().issue("web") }, "unverified");
  await expectRefused({}, "handshake_failed", /certificate required/);
});

test("TLS 1.2 and 1.1 are alerts", async () => {
  await expectRefused(
    { identity: good, more: ["-tls1_2"] },
    "handshake_failed",
    /protocol version/,
  );
});
