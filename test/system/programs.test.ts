/**
 * HTTP between programs that others wrote: clients of many kinds, and servers that close connections
 * early, both with two proxies between. Nothing may fail that does not fail without them.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { Agent, createServer, request } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run, TestMesh, takePorts } from "../harness/mesh.ts";

const folder = mkdtempSync(join(tmpdir(), "weft-programs-"));
const nginxPort = takePorts(1);
const pythonPort = takePorts(1);
const iperfPort = takePorts(1);
const [toNginx, toPython, toNode, toIperf] = [
  takePorts(1),
  takePorts(1),
  takePorts(1),
  takePorts(1),
];
const page = `http://127.0.0.1:${toNginx}/page`;
const SIZE = 8_000_000;
let mesh: TestMesh;

/** Tells what it got; closes connections that rest for a second, and says so. */
const node = createServer((asked, answer) => {
  let bytes = 0;
  asked.on("data", (chunk: Buffer) => {
    bytes += chunk.length;
  });
  asked.on("end", () => answer.end(`${asked.method} ${bytes}`));
});
node.keepAliveTimeout = 1000;

const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
  .map((name) => `${name}_temp_path ${folder}/${name};`)
  .join(" ");

beforeAll(async () => {
  chmodSync(folder, 0o755); // nginx gives its own rights up
  mkdirSync(join(folder, "root"));
  writeFileSync(join(folder, "root/page"), "page\n");
  writeFileSync(join(folder, "root/big"), randomBytes(SIZE));
  writeFileSync(
    join(folder, "nginx.conf"),
    `daemon off; pid ${folder}/pid; events { worker_connections 512; } http { ${paths}
     log_format asked "$request_method $arg_id"; access_log ${folder}/asked asked;
     keepalive_timeout 1s; keepalive_requests 5;
     server { listen 127.0.0.1:${nginxPort}; root ${folder}/root;
     location /order { return 200 "taken"; } } }`,
  );
  mesh = await TestMesh.start();
  mesh.spawn(["nginx", "-e", `${folder}/error`, "-c", `${folder}/nginx.conf`]);
  const files = ["--bind", "127.0.0.1", "--directory", join(folder, "root")];
  mesh.spawn(["python3", "-m", "http.server", String(pythonPort), ...files]);
  mesh.spawn(["iperf3", "-s", "-B", "127.0.0.1", "-p", String(iperfPort)]);
  await new Promise<void>((resolve) => void node.listen(0, "127.0.0.1", resolve));
  const nodePort = (node.address() as AddressInfo).port;
  await mesh.sidecar({
    service: "apps",
    app: [
      ...[`80=${nginxPort}/http`, `81=${pythonPort}/http`, `82=${nodePort}/http`],
      `83=${iperfPort}/tcp`,
    ],
  });
  await mesh.sidecar({
    service: "web",
    upstream: [
      `apps/80:${toNginx}`,
      `apps/81:${toPython}`,
      `apps/82:${toNode}`,
      `apps/83:${toIperf}`,
    ],
  });
}, 60_000);

afterAll(async () => {
  node.close();
  await mesh?.stop();
  rmSync(folder, { recursive: true, force: true });
});

/** What a program says that must succeed. */
async function output(...command: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await run(command);
  if (code !== 0) throw new Error(`${command.join(" ")}: exit ${code}: ${stderr}${stdout}`);
  return stdout;
}

test.each(["", "-k"])("ab %s", async (flag) => {
  const flags = flag === "" ? [] : [flag];
  const said = await output("ab", "-q", ...flags, "-n", "1000", "-c", "10", page);
  expect(said).toMatch(/Complete requests: +1000\nFailed requests: +0\n/);
  expect(said).not.toContain("Non-2xx");
  if (flag !== "") expect(said).toMatch(/Keep-Alive requests: +1000\n/);
});

test.each([1, 8])("h2load, %i requests at a time on each connection", async (depth) => {
  const said = await output("h2load", "--h1", "-n2000", "-c10", "-t1", `-m${depth}`, page);
  expect(said).toContain("2000 succeeded, 0 failed, 0 errored, 0 timeout");
});

test("wrk", async () => {
  const said = await output("wrk", "-t1", "-c16", "-d1s", page);
  expect(said).not.toMatch(/Socket errors|Non-2xx/);
});

test("curl: files down and up, whole, by length, in chunks, after a 100 and by HTTP/1.0", async () => {
  const big = join(folder, "root/big");
  for (const [port, version] of [
    [toNginx, "-0"],
    [toNginx, "--http1.1"],
    [toPython, "--http1.1"],
  ]) {
    const file = join(folder, "down");
    await output("curl", "-sSf", String(version), "-o", file, `http://127.0.0.1:${port}/big`);
    await output("cmp", big, file);
  }
  const up = ["curl", "-sSf", "-T", big, `http://127.0.0.1:${toNode}/`];
  for (const how of [["-0"], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect:"]]) {
    expect(await output(...up, ...how)).toBe(`PUT ${SIZE}`);
  }
  const told = await run([...up, "-v", "-H", "Expect: 100-continue", "--expect100-timeout", "30"]);
  expect(told).toMatchObject({ code: 0, stdout: `PUT ${SIZE}` });
  expect(told.stderr).toContain("HTTP/1.1 100 Continue");
});

const PYTHON = `
import http.client, sys, urllib.request
for port in sys.argv[1:]:
    kept = http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)
    for i in range(100):
        kept.request("GET", "/page")
        answer = kept.getresponse()
        assert (answer.status, len(answer.read()) > 0) == (200, True), answer.status
    for i in range(10):
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/page").status == 200
`;

test("python's clients", async () => {
  await output("python3", "-c", PYTHON, ...[toNginx, toPython, toNode].map(String));
});

/** Status of a request that names itself by `id`. */
function order(agent: Agent, method: string, id: number): Promise<number> {
  return new Promise((resolve) => {
    const options = { agent, method, host: "127.0.0.1", port: toNginx, path: `/order?id=${id}` };
    const asked = request(options, (answer) => {
      answer.resume();
      answer.on("end", () => resolve(answer.statusCode ?? 0));
    });
    asked.on("error", () => resolve(0));
    asked.end(method === "POST" ? "one" : undefined);
  });
}

test("nginx ends kept connections all the time: nobody notices, no order comes twice", async () => {
  const agent = new Agent({ keepAlive: true });
  const statuses = new Map<string, number>();
  const counted = async (method: string, id: number) => {
    const key = `${method} ${await order(agent, method, id)}`;
    statuses.set(key, (statuses.get(key) ?? 0) + 1);
  };
  // In bursts, each about when nginx ends what rests since the one before.
  for (let burst = 0; burst < 3; burst++) {
    await Promise.all(
      Array.from({ length: 200 }, (_, i) => counted(i % 2 ? "POST" : "GET", burst * 200 + i)),
    );
    await Bun.sleep(990 + burst * 5);
  }
  agent.destroy();
  console.log(Object.fromEntries(statuses));
  expect(statuses.get("GET 200")).toBe(300);
  // A connection may end under an order: that is told, and it is not sent again.
  const posts = (statuses.get("POST 200") ?? 0) + (statuses.get("POST 503") ?? 0);
  expect(posts).toBe(300);
  const ids = readFileSync(join(folder, "asked"), "utf8").match(/^POST \d+$/gm) ?? [];
  expect(new Set(ids).size).toBe(ids.length);
  expect(ids.length).toBeGreaterThanOrEqual(statuses.get("POST 200") ?? 0);
}, 30_000);

test.each(["", "-R", "--bidir"])("iperf3 %s", async (flag) => {
  const flags = flag === "" ? [] : [flag];
  const to = ["-c", "127.0.0.1", "-p", String(toIperf)];
  const said = JSON.parse(await output("iperf3", ...to, "-P8", "-n16M", "-J", ...flags));
  expect(said.error).toBeUndefined();
  expect(said.end.sum_received.bytes).toBeGreaterThan(0);
});
