/** Node mode: one proxy process, several workloads, each under its own identity. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  ask,
  metrics,
  run,
  type Sidecar,
  sumMetric,
  TestMesh,
  takePorts,
  WEFT,
} from "../harness/mesh.ts";
import { type App, echo } from "../harness/servers.ts";

let mesh: TestMesh;
let node: Sidecar;
const apps: App[] = [];
const base = takePorts(60);
const out = (workload: number) => `http://127.0.17.${workload}:${base + 1}`;

beforeAll(async () => {
  mesh = await TestMesh.start();
  const [a, b] = [echo("alpha"), echo("beta")];
  apps.push(a, b);
  const file = join(mesh.folder, "workloads.yaml");
  writeFileSync(
    file,
    `- { service: alpha, app: ["8080=${a.port}"] }\n- { service: beta, app: ["8080=${b.port}"] }\n`,
  );
  const data = join(mesh.folder, "node");
  node = await mesh.proxy(
    [
      WEFT,
      "--mode=node",
      `--workloads=${file}`,
      `--controlplane=${mesh.api}`,
      `--token-file=${await mesh.token()}`,
      `--data=${data}`,
      `--port-base=${base}`,
    ],
    data,
    base,
  );
}, 60_000);

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
