import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer as createPlain, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createServer, type TlsOptions } from "node:tls";
import { type TestIdentity, testAuthority } from "./certificates.fixture.ts";
import { readClientHello } from "./client-hello.ts";
import { dial } from "./dial.ts";
import { type OutsideCheck, outsideContext } from "./outside-tls.ts";

const ca = testAuthority("weft.test");
const NAME = "api.default.weft.test";
const good = ca.issue("api");
const stops: (() => void)[] = [];
afterAll(() => {
  for (const stop of stops) stop();
});

async function started(server: Server): Promise<number> {
  stops.push(() => server.close());
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as { port: number }).port;
}

function secure(identity: TestIdentity, more: TlsOptions = {}): Promise<number> {
  const server = createServer({ cert: identity.cert, key: identity.key, ...more }, (socket) => {
    socket.on("error", () => {});
    socket.end("hello");
  });
  server.on("tlsClientError", () => {});
  return started(server);
}

interface Ask {
  readonly serverName?: string;
  readonly alpn?: string;
  readonly check?: Partial<OutsideCheck>;
  readonly roots?: string;
  readonly client?: { readonly certificate: string; readonly key: string };
}

let clock = 0;

/** What the server says, or why it is refused. */
function ask(port: number, o: Ask = {}): Promise<string> {
  const { serverName = NAME, alpn = "", check, roots = ca.root, client } = o;
  const outside = { verify: true, names: [serverName], ...check };
  const tls = {
    context: outsideContext({ ca: roots, ...(client ? { client } : {}) }, clock),
    serverName,
    alpn,
    outside,
  };
  return new Promise((resolve) => {
    let text = "";
    dial(
      { host: "127.0.0.1", port, timeoutMs: 2000, tls },
      () => ({
        data: (_c, chunk) => {
          text += Buffer.from(chunk).toString();
        },
        end: (c) => c.close(),
        drain() {},
        close: () => resolve(text),
      }),
      (error) => resolve(`refused: ${error.message}`),
    );
  });
}

test("a server with the right certificate is believed, by TLS 1.2 and 1.3", async () => {
  expect(await ask(await secure(good))).toBe("hello");
  expect(await ask(await secure(good, { maxVersion: "TLSv1.2" }))).toBe("hello");
  const old = await secure(good, { minVersion: "TLSv1", maxVersion: "TLSv1.1" });
  expect(await ask(old)).toBe("refused: the TLS handshake failed: TLSV1_ALERT_PROTOCOL_VERSION");
});

const HOUR = 3600;
/** A DNS name of any bytes, as openssl takes it. */
function der(name: string): string {
  const text = Buffer.from(name, "latin1").toString("hex");
  const length = (bytes: number) => bytes.toString(16).padStart(2, "0");
  return `DER:30${length(name.length + 2)}82${length(name.length)}${text}`;
}

const OTHER = testAuthority("other.test");
const REFUSED: readonly (readonly [what: string, identity: TestIdentity, why: RegExp])[] = [
  ["expired", ca.flawed("api", { from: -2 * HOUR, to: -HOUR }), /^its certificate has expired$/],
  ["not valid yet", ca.flawed("api", { from: HOUR, to: 2 * HOUR }), /is not valid yet$/],
  ["for clients only", ca.flawed("api", { usage: "clientAuth" }), /is not one for servers$/],
  ["of another authority", OTHER.issue("api"), /not signed by an authority that is trusted/],
  ["for another name", ca.issue("pay"), /^its certificate is for .*pay\.def.*, not for api\.def/],
  ["without DNS names", ca.flawed("api", { names: `URI:spiffe://${NAME}` }), /, not for api\.de/],
  ["for a name below", ca.flawed("api", { names: `DNS:*.${NAME}` }), /, not for api\.default/],
  ["for names two below", ca.flawed("api", { names: "DNS:*.weft.test" }), /, not for api\.def/],
  ["for a name cut by NUL", ca.flawed("api", { names: der(`${NAME}\0.x.test`) }), /, not for api/],
  ["for half a label", ca.flawed("api", { names: "DNS:ap*.default.weft.test" }), /, not for api/],
];

for (const [what, identity, why] of REFUSED) {
  test(`a certificate ${what} is refused with words, and only by those who look`, async () => {
    const port = await secure(identity);
    const answer = await ask(port);
    expect(answer).toStartWith("refused: ");
    expect(answer.slice("refused: ".length)).toMatch(why);
    expect(await ask(port, { check: { verify: false } })).toBe("hello");
  });
}

test("a self-signed certificate is refused, unless it is the one to trust", async () => {
  const folder = `${process.env["TMPDIR"] ?? "/tmp"}/weft-self-${process.pid}`;
  const made = Bun.spawnSync(
    ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
      .concat(["-keyout", `${folder}.key`, "-out", `${folder}.pem`, "-days", "1"])
      .concat(["-subj", "/CN=self", "-addext", `subjectAltName=DNS:${NAME},IP:127.0.0.1`]),
  );
  expect(made.exitCode).toBe(0);
  const cert = await Bun.file(`${folder}.pem`).text();
  const key = await Bun.file(`${folder}.key`).text();
  stops.push(() => Bun.spawnSync(["rm", "-f", `${folder}.key`, `${folder}.pem`]));
  const port = await secure({ cert, key, uri: "" });
  expect(await ask(port)).toBe("refused: its certificate is self-signed");
  expect(await ask(port, { roots: cert })).toBe("hello");
  expect(await ask(port, { roots: cert, serverName: "", check: { names: ["127.0.0.1"] } })).toBe(
    "hello",
  );
});

test("names asked for need not be the one sent; one of them is enough", async () => {
  const port = await secure(good);
  const names = (...list: string[]) => ({ check: { names: list } });
  expect(await ask(port, { serverName: "front.test", ...names("x.test", NAME) })).toBe("hello");
  expect(await ask(port, names("x.test", "127.0.0.1"))).toMatch(
    /, not for x\.test or 127\.0\.0\.1$/,
  );
  expect(await ask(port, names())).toMatch(/^refused: /);
});

test("a wildcard stands for one label", async () => {
  expect(await ask(await secure(ca.flawed("api", { names: "DNS:*.default.weft.test" })))).toBe(
    "hello",
  );
});

test("a common name says nothing", async () => {
  const port = await secure(ca.flawed("api", { names: "DNS:x.test" }));
  expect(await ask(port, { serverName: "odd" })).toBe(
    "refused: its certificate is for x.test, not for odd",
  );
});

test("a protocol is offered, not demanded; another one is refused", async () => {
  expect(await ask(await secure(good), { alpn: "http/1.1" })).toBe("hello");
  const h1 = await secure(good, { ALPNProtocols: ["h2", "http/1.1"] });
  expect(await ask(h1, { alpn: "http/1.1" })).toBe("hello");
  const h2 = await secure(good, { ALPNProtocols: ["h2"] });
  expect(await ask(h2, { alpn: "http/1.1" })).toBe(
    "refused: the TLS handshake failed: TLSV1_ALERT_NO_APPLICATION_PROTOCOL",
  );
});

test("a server in plaintext, one that closes and one that is silent are told apart", async () => {
  const says = (text: string) =>
    started(
      createPlain((socket) => {
        socket.on("error", () => {});
        socket.once("data", () => socket.end(text));
      }),
    );
  expect(await ask(await says("HTTP/1.1 400 Bad Request\r\n\r\n"))).toBe(
    "refused: it does not speak TLS",
  );
  expect(await ask(await says(""))).toMatch(/^refused: /);
});

test("name and protocol travel in the hello", async () => {
  const hello = Promise.withResolvers<Uint8Array>();
  const port = await started(
    createPlain((socket) => {
      socket.on("error", () => {});
      socket.once("data", (chunk) => {
        hello.resolve(chunk as Buffer);
        socket.destroy();
      });
    }),
  );
  await ask(port, { alpn: "http/1.1" });
  expect(readClientHello(await hello.promise)).toEqual({
    kind: "hello",
    serverName: NAME,
    alpn: ["http/1.1"],
  });
});

test("a client certificate is read from files, and again when both are replaced", async () => {
  const folder = mkdtempSync(join(tmpdir(), "weft-client-"));
  stops.push(() => rmSync(folder, { recursive: true, force: true }));
  const client = { certificate: join(folder, "cert.pem"), key: join(folder, "key.pem") };
  const server = createServer(
    { cert: good.cert, key: good.key, ca: ca.root, requestCert: true, rejectUnauthorized: false },
    (socket) => {
      socket.on("error", () => {});
      socket.end(`${socket.authorized} ${socket.getPeerCertificate().subjectaltname ?? "nobody"}`);
    },
  );
  const port = await started(server);
  expect(await ask(port)).toBe("false nobody");
  expect(() => outsideContext({ ca: ca.root, client }, clock)).toThrow("ENOENT");
  const put = (name: "cert" | "key", service: string, identity = ca.issue(service)) => {
    writeFileSync(join(folder, `${name}.pem`), identity[name]);
    return identity;
  };
  put("key", "a", put("cert", "a"));
  expect(await ask(port, { client })).toMatch(/^true .*sa\/a,/);
  const next = put("cert", "bb");
  expect(await ask(port, { client })).toMatch(/^true .*sa\/a,/);
  clock += 2000;
  // The key of the new certificate is not there yet.
  expect(await ask(port, { client })).toMatch(/^true .*sa\/a,/);
  put("key", "bb", next);
  clock += 2000;
  expect(await ask(port, { client })).toMatch(/^true .*sa\/bb,/);
  rmSync(client.key);
  clock += 2000;
  expect(await ask(port, { client })).toMatch(/^true .*sa\/bb,/);
});

test("what cannot be dialled at all fails like the rest, once", async () => {
  for (const [host, port] of [
    ["", 1],
    ["127.0.0.1", 70_000],
  ] as const) {
    const errors: Error[] = [];
    let freed = 0;
    const never = () => {
      throw new Error("it was opened");
    };
    const options = { host, port, timeoutMs: 20, freed: () => freed++ };
    dial(options, never, (error) => errors.push(error));
    expect(errors).toHaveLength(0);
    await Bun.sleep(50);
    expect([errors.length, freed]).toEqual([1, 1]);
  }
});

test("files of a client certificate that do not fit together are named", () => {
  const folder = mkdtempSync(join(tmpdir(), "weft-pair-"));
  stops.push(() => rmSync(folder, { recursive: true }));
  const client = { certificate: join(folder, "cert.pem"), key: join(folder, "key.pem") };
  writeFileSync(client.certificate, good.cert);
  writeFileSync(client.key, ca.issue("other").key);
  const use = () => outsideContext({ ca: ca.root, client }, 0);
  expect(use).toThrow(`${client.certificate} with ${client.key}: they do not belong together`);
  writeFileSync(client.key, "none");
  expect(use).toThrow(`${client.certificate} with ${client.key}: `);
});
