/** Callers that speak TLS themselves on the outbound port: passed through by server name. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { createServer as createRaw, type Server, type Socket } from "node:net";
import { connect as connectTls, createServer as createTls } from "node:tls";
import { testAuthority } from "../net/certificates.fixture.ts";
import { snapshotOf, TestPlane, type TestWorkload } from "./mesh.fixture.ts";
import { eventually, serve, stopAll, talk } from "./servers.fixture.ts";

const ca = testAuthority("mesh");
const shop = ca.flawed("shop", { names: "DNS:shop.default.mesh,DNS:shop,DNS:shop.example" });
const closes: (() => void)[] = [];
const plane = new TestPlane({
  tickMs: 20,
  lookup: async (host) => (host === "shop.example" ? ["127.0.0.1"] : ["127.0.0.2"]),
  forbidden: (address) => address === "127.0.0.2",
});
let web: TestWorkload;
let seen = "";

async function started(server: Server): Promise<number> {
  closes.push(() => server.close());
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as { port: number }).port;
}

beforeAll(async () => {
  const tls = createTls({ cert: shop.cert, key: shop.key }, (socket) => {
    socket.on("error", () => {});
    socket.on("data", (text) => socket.end(`${socket.servername}: ${text}`));
  });
  const tlsPort = await started(tls);
  const raw = await started(
    createRaw((socket) => {
      socket.on("error", () => {});
      socket.on("data", (chunk) => {
        seen += chunk.toString("latin1");
      });
    }),
  );
  const http = serve(() => new Response("plain"));
  const app = (servicePort: number, port: number) => ({ servicePort, host: "127.0.0.1", port });
  plane.workload("shop", [{ ...app(443, tlsPort), protocol: "tls" }]);
  plane.workload("raw", [{ ...app(9000, raw), protocol: "tcp" }]);
  plane.workload("page", [app(80, http)]);
  web = plane.workload("web");
  web.snapshot.set(
    snapshotOf([
      { service: "shop", port: 443, protocol: "tls", endpoints: [plane.endpoint("shop")] },
      { service: "raw", port: 9000, protocol: "tcp", endpoints: [plane.endpoint("raw")] },
      { service: "page", port: 80, endpoints: [plane.endpoint("page")] },
      { service: "gone", port: 443, protocol: "tls", endpoints: [{ ports: { "443": 1 } }] },
    ]),
  );
});

afterAll(() => {
  plane.plane.stop();
  for (const close of closes) close();
  stopAll();
});

/** What a TLS client hears, or the code of its error. */
function ask(servername: string, port = web.outbound): Promise<string> {
  return new Promise((resolve) => {
    let text = "";
    const socket: Socket = connectTls(
      { host: "127.0.0.1", port, servername, ca: ca.root, checkServerIdentity: () => undefined },
      () => socket.write("hello"),
    );
    socket.on("data", (chunk) => {
      text += chunk.toString();
    });
    socket.on("error", (error) => resolve(`error: ${error.message}`));
    socket.on("close", () => resolve(text));
  });
}

/** The ClientHello of a client for this name. */
async function helloFor(servername: string): Promise<Buffer> {
  const { promise, resolve } = Promise.withResolvers<Buffer>();
  const server = createRaw((socket) => {
    socket.on("error", () => {});
    socket.once("data", (chunk) => {
      resolve(chunk as Buffer);
      socket.destroy();
    });
  });
  const port = await started(server);
  const socket = connectTls({ host: "127.0.0.1", port, servername });
  socket.on("error", () => {});
  return promise;
}

test("every spelling of a service reaches it, end to end", async () => {
  for (const name of ["shop.default.mesh", "shop.default.svc.cluster.local", "shop.default"]) {
    expect(await ask(name)).toBe(`${name}: hello`);
  }
  expect(await ask("SHOP.default.MESH")).toEndWith(": hello");
  const counted =
    /weft_tcp_connections_total\{direction="outbound".*peer="default\/shop",.*reason=""\} 4/;
  expect(await eventually(() => counted.test(plane.metrics.render()))).toBe(true);
});

test("requests in plaintext take their way on the same port", async () => {
  const answer = await fetch(web.url, { headers: { host: "page" } });
  expect(await answer.text()).toBe("plain");
});

test("curl verifies the service's own certificate", async () => {
  const file = `${process.env["TMPDIR"] ?? "/tmp"}/weft-sni-${process.pid}.pem`;
  await Bun.write(file, ca.root);
  closes.push(() => Bun.spawnSync(["rm", "-f", file]));
  const curl = (name: string) => {
    const to = `${name}:443:127.0.0.1:${web.outbound}`;
    const flags = ["-sS", "--http0.9", "--max-time", "5", "--cacert", file, "--connect-to", to];
    return Bun.spawn(["curl", ...flags, `https://${name}/`], { stdout: "pipe", stderr: "pipe" });
  };
  const good = curl("shop.default.mesh");
  expect(await new Response(good.stdout).text()).toContain("shop.default.mesh: GET / HTTP/1.1");
  const unnamed = curl("shop.default.svc.cluster.local");
  expect(await new Response(unnamed.stderr).text()).toContain("no alternative certificate");
  const unknown = curl("nobody.default.mesh");
  expect(await new Response(unknown.stderr).text()).toMatch(/unrecognized name/i);
});

test("a hello cut at every byte arrives as it was sent, with what follows it", async () => {
  const bytes = Buffer.concat([await helloFor("raw.default.mesh"), Buffer.from("and more")]);
  for (let cut = 1; cut < bytes.length; cut += cut < 12 || cut > bytes.length - 12 ? 1 : 7) {
    seen = "";
    const { socket, heard } = talk(web.outbound, "");
    socket.setNoDelay(true);
    socket.write(bytes.subarray(0, cut));
    await Bun.sleep(1);
    socket.end(bytes.subarray(cut));
    expect(await eventually(() => seen.length >= bytes.length)).toBe(true);
    expect(Buffer.from(seen, "latin1").equals(bytes)).toBe(true);
    socket.destroy();
    await heard;
  }
}, 30_000);

const ALERT = (code: number) => `\x15\x03\x03\x00\x02\x02${String.fromCharCode(code)}`;

test.each([
  ["nobody.default.mesh", 112],
  ["nobody.default", 112],
  ["page.default.mesh", 112],
  ["other.example", 112],
  ["", 109],
  ["gone.default.mesh", 80],
])("a hello for %p is answered by alert %d", async (name, alert) => {
  const hello = name === "" ? await helloFor("") : await helloFor(name);
  const unnamed = name === "" ? withoutName(hello) : hello;
  const heard = await talk(web.outbound, unnamed.toString("latin1")).heard;
  expect(heard).toEqual({ text: ALERT(alert), ended: true, error: "" });
});

/** The hello with its server name extension turned into one that nobody knows. */
function withoutName(hello: Buffer): Buffer {
  const at = hello.indexOf(Buffer.from("127.0.0.1", "latin1"));
  if (at === -1) return hello;
  const changed = Buffer.from(hello);
  changed.writeUInt16BE(0xfafa, at - 9);
  return changed;
}

test("what is no hello is answered by an alert, however it comes", async () => {
  const hello = await helloFor("raw.default.mesh");
  const wrong = Buffer.from(hello);
  wrong[5] = 2;
  for (const bytes of [wrong, Buffer.from("\x16\x02\x00\x00\x05hello", "latin1")]) {
    const { text } = await talk(web.outbound, bytes.toString("latin1")).heard;
    expect(text).toBe(ALERT(50));
  }
  const first = Buffer.alloc(105, "\x16\x03\x01\x00\x64\x01\x00\x3e\x80", "latin1");
  const crumbs = first.toString("latin1") + "\x16\x03\x01\x00\x01\x00".repeat(70);
  expect((await talk(web.outbound, crumbs).heard).text).toBe(ALERT(50));
});

test("a hello that does not come to its end is given up", async () => {
  const hello = await helloFor("raw.default.mesh");
  const { heard } = talk(web.outbound, hello.subarray(0, 50).toString("latin1"));
  expect((await heard).text).toBe(ALERT(80));
  const closed = talk(web.outbound, hello.subarray(0, 50).toString("latin1"));
  closed.socket.end();
  expect(await closed.heard).toMatchObject({ text: "", ended: true });
  expect(plane.metrics.render()).toMatch(
    /weft_tcp_connections_total\{.*peer="",port="",subset="",tls="none",reason="timeout"\} 1/,
  );
});

test("a service that the proxy must ask for waits for it", async () => {
  const lazy = plane.workload("lazy");
  plane.onAccess = () => {
    setTimeout(() => lazy.snapshot.set(web.snapshot.value), 20);
    return true;
  };
  expect(await ask("shop.default.mesh", lazy.outbound)).toBe("shop.default.mesh: hello");
  plane.onAccess = () => false;
});

test("several opaque ports are ambiguous, unless one is 443", async () => {
  const many = plane.workload("many");
  const one = snapshotOf([
    { service: "raw", port: 9000, protocol: "tcp", endpoints: [plane.endpoint("raw")] },
  ]);
  const service = one.services.get("default/raw")!;
  const [port] = [...service.ports.values()];
  const ports = new Map([
    [9000, port!],
    [9001, { ...port!, port: 9001 }],
  ]);
  const services = new Map([["default/raw", { ...service, ports }]]);
  many.snapshot.set({ ...one, services });
  const hello = (await helloFor("raw.default.mesh")).toString("latin1");
  expect((await talk(many.outbound, hello).heard).text).toBe(ALERT(112));
  ports.set(443, { ...port!, port: 443 });
  many.snapshot.set({ ...one, services: new Map(services) });
  seen = "";
  const { socket } = talk(many.outbound, hello);
  expect(await eventually(() => seen.length === hello.length)).toBe(true);
  socket.destroy();
});

test("hosts outside are refused by default, and then only those of this host", async () => {
  const hello = async (name: string) => (await helloFor(name)).toString("latin1");
  const away = plane.workload("away");
  expect((await talk(away.outbound, await hello("shop.example")).heard).text).toBe(ALERT(112));
  away.snapshot.set(snapshotOf([], { outbound: "ALLOW_ANY" }));
  expect((await talk(away.outbound, await hello("evil.example")).heard).text).toBe(ALERT(112));
  // It is allowed now, and nothing listens at port 443 there.
  expect((await talk(away.outbound, await hello("shop.example")).heard).text).toBe(ALERT(80));
});

test("a service answers to its further hosts, by TLS and by HTTP", async () => {
  const named = plane.workload("named");
  const services = [
    { service: "shop", port: 443, protocol: "tls" as const, endpoints: [plane.endpoint("shop")] },
    { service: "page", port: 80, endpoints: [plane.endpoint("page")] },
  ];
  const hosts = { "shop.example": "default/shop", "page.example": "default/page" };
  named.snapshot.set(snapshotOf(services, { hosts }));
  expect(await ask("shop.example", named.outbound)).toBe("shop.example: hello");
  const page = await fetch(named.url, { headers: { host: "PAGE.example.:80" } });
  expect(await page.text()).toBe("plain");
  // One that this workload may not see is a host outside like any other.
  named.snapshot.set(snapshotOf([], { hosts }));
  const hidden = await fetch(named.url, { headers: { host: "page.example" } });
  expect(await hidden.text()).toContain("page.example is not a service of the mesh");
  expect(plane.asked).toContain("default/page");
});

test("an upstream port of a tls service is passed through whatever the name", async () => {
  const service = { namespace: "default", service: "shop" };
  const port = plane.plane.listenUpstream(web.local, service, "127.0.0.1", 0);
  expect(await ask("shop.example", port)).toBe("shop.example: hello");
});

test("callers are counted while their hello is read, and let go in a drain", async () => {
  const other = new TestPlane();
  const local = other.workload("web");
  const { heard } = talk(local.outbound, "\x16\x03\x01");
  const open = /weft_connections_active\{direction="outbound",workload="default\/web"\} 1/;
  expect(await eventually(() => open.test(other.metrics.render()))).toBe(true);
  await other.plane.drain(0, 1000);
  expect((await heard).text).toBe("");
});
