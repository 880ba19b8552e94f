/** Node mode: one proxy process, several workloads, each under its own identity. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { load } from "../harness/load.ts";
import {
  ask,
  metrics,
  run,
  type Sidecar,
  sumMetric,
  TestMesh,
  takePorts,
  until,
  WEFT,
} from "../harness/mesh.ts";
import { type App, echo } from "../harness/servers.ts";

let mesh: TestMesh;
let node: Sidecar;
let workloads = "";
const apps: App[] = [];
const base = takePorts(60);
const SERVICES = ["alpha", "beta", "gamma"] as const;
const out = (workload: number) => `http://127.0.17.${workload}:${base + 1}`;

beforeAll(async () => {
  mesh = await TestMesh.start();
  workloads = join(mesh.folder, "workloads.yaml");
  const lines = SERVICES.map((service) => {
    const app = echo(service);
    apps.push(app);
    return `- { service: ${service}, app: ["8080=${app.port}"] }\n`;
  });
  writeFileSync(workloads, lines.join(""));
  node = await startNode("node", base);
}, 60_000);

async function startNode(name: string, portBase: number): Promise<Sidecar> {
  const data = join(mesh.folder, name);
  const command = [
    WEFT,
    "--mode=node",
    `--workloads=${workloads}`,
    `--controlplane=${mesh.api}`,
    `--token-file=${await mesh.token()}`,
    `--data=${data}`,
    `--port-base=${portBase}`,
  ];
  return mesh.proxy(command, data, portBase);
}

afterAll(async () => {
  for (const app of apps) app.stop();
  await mesh?.stop();
});

test("a call between two workloads of the node is authenticated like any other", async () => {
  const answer = await ask(out(1), "beta");
  expect(answer.status).toBe(200);
  expect(((await answer.json()) as { name: string }).name).toBe("beta");
  const text = await metrics(node);
  const inbound = sumMetric(text, "weft_requests_total", {
    direction: "inbound",
    workload: "default/beta",
    source: "default/alpha",
    tls: "mtls",
  });
  expect(inbound).toBe(1);
});

test("each loopback address speaks under its own identity", async () => {
  expect((await ask(out(2), "alpha")).status).toBe(200);
  const text = await metrics(node);
  expect(
    sumMetric(text, "weft_requests_total", {
      direction: "inbound",
      workload: "default/alpha",
      source: "default/beta",
    }),
  ).toBe(1);
  expect(
    sumMetric(text, "weft_requests_total", {
      direction: "inbound",
      workload: "default/alpha",
      source: "default/alpha",
    }),
  ).toBe(0);
});

test("each name on the mesh port meets its own workload's certificate", async () => {
  for (const service of ["alpha", "beta"]) {
    const result = await run(
      [
        ...["openssl", "s_client", "-connect", `127.0.0.1:${node.meshPort}`, "-showcerts"],
        ...["-servername", `p8080.${service}.default.weft.local`, "-alpn", "http/1.1"],
      ],
      { stdin: "" },
    );
    const leaf = result.stdout.slice(
      result.stdout.indexOf("-----BEGIN CERTIFICATE-----"),
      result.stdout.indexOf("-----END CERTIFICATE-----") + 25,
    );
    const shown = await run(["openssl", "x509", "-noout", "-ext", "subjectAltName"], {
      stdin: `${leaf}\n`,
    });
    expect(shown.stdout).toContain(`URI:spiffe://weft.local/ns/default/sa/${service}`);
  }
});

test("a thousand calls at once: each arrives as its own caller, at its own workload", async () => {
  const counts = async () => {
    const text = await metrics(node);
    const seen = (workload: string, source: string) =>
      sumMetric(text, "weft_requests_total", {
        ...{ direction: "inbound", workload: `default/${workload}`, tls: "mtls" },
        source: `default/${source}`,
      });
    const pairs = [seen("beta", "alpha"), seen("alpha", "beta"), seen("alpha", "alpha")];
    return [...pairs, seen("beta", "beta")];
  };
  const before = await counts();
  const calls = Array.from({ length: 1000 }, (_, i) => {
    const [caller, called] = [1 + (i % 2), i % 4 < 2 ? "alpha" : "beta"];
    return ask(out(caller), called, `/${i}`).then(async (answer) => {
      const { name, path } = (await answer.json()) as { name: string; path: string };
      return name === called && path === `/${i}`;
    });
  });
  expect((await Promise.all(calls)).filter((right) => right).length).toBe(1000);
  const after = await counts();
  // i % 4: alpha calls alpha, beta calls alpha, alpha calls beta, beta calls beta.
  expect(after.map((count, i) => count - before[i]!)).toEqual([250, 250, 250, 250]);
}, 20_000);

test("configurations change and nodes restart under load: no request fails", async () => {
  const others = takePorts(60);
  const nodes = [node, await startNode("node-2", others)];
  const web = await mesh.sidecar({ service: "web" });
  let turn = 0;
  const next = () => ask(web.outbound, SERVICES[turn++ % SERVICES.length]!);
  await until("each service is known", async () =>
    (await Promise.all(SERVICES.map(next))).every(({ ok }) => ok),
  );
  const under = load(next, { concurrency: 8, perSecond: 600 });
  const within = load(() => ask(out(1), "gamma"), { concurrency: 2, perSecond: 100 });
  for (let change = 1; change <= 4; change++) {
    const documents = SERVICES.map(
      (service) => `---
apiVersion: weft.dev/v1
kind: TrafficPolicy
metadata: { name: ${service} }
spec:
  target: { service: ${service} }
  timeouts: { request: ${change}m }
`,
    );
    await mesh.apply(documents.join(""), "--wait");
  }
  await within.stop();
  for (const [i, portBase] of [base, others].entries()) {
    nodes[i]!.kill("SIGTERM");
    expect(await nodes[i]!.exited).toBe(0);
    nodes[i] = await mesh.proxy([WEFT, ...nodes[i]!.args], nodes[i]!.data, portBase);
    expect(sumMetric(await metrics(nodes[i]!), "weft_registered")).toBe(SERVICES.length);
  }
  [node] = nodes as [Sidecar, Sidecar];
  await under.stop();
  expect([...under.failures, ...within.failures]).toEqual([]);
  expect(under.ok).toBeGreaterThan(500);
}, 60_000);
