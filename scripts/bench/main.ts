/** `scripts/bench.sh`: runs the scenarios and prints a table, or JSON with `--json`. */
import { readFileSync } from "node:fs";
import { cpus, release } from "node:os";
import { parseArgs } from "node:util";
import { takePorts, until, WEFT } from "../../test/harness/mesh.ts";
import { ENVOY, startEnvoy } from "./envoy.ts";
import { FORTIO, hasFortio, LOAD_CORE } from "./load.ts";
import { type BenchMesh, startMesh } from "./meshes.ts";
import { type Ports, startPeers } from "./peers.ts";
import { reportJson, reportText, type Scenario } from "./report.ts";
import { SCENARIOS } from "./scenarios.ts";

const { values: flags, positionals } = parseArgs({
  options: {
    json: { type: "boolean", default: false },
    slices: { type: "string", default: "15" },
    seconds: { type: "string", default: "3" },
  },
  allowPositionals: true,
});
const say = (text: string) => process.stderr.write(text);
const unknown = positionals.find((name) => !(name in SCENARIOS));
if (unknown !== undefined) {
  say(`error: no scenario ${unknown}; there are ${Object.keys(SCENARIOS).join(" ")}\n`);
  process.exit(2);
}

const base = takePorts(20);
const ports: Ports = {
  backend: base,
  haproxyPlain: base + 1,
  haproxyFront: base + 2,
  haproxyMesh: base + 3,
  haproxyTcpFront: base + 4,
  haproxyTcpMesh: base + 5,
  haproxyTcpPlain: base + 6,
  nginxPlain: base + 7,
  nginxFront: base + 8,
  nginxMesh: base + 9,
  envoyPlain: base + 10,
  envoyFront: base + 11,
  envoyMesh: base + 12,
  envoyTcpPlain: base + 13,
  envoyTcpFront: base + 14,
  envoyTcpMesh: base + 15,
  iperf: base + 16,
};

function version(command: readonly string[]): string {
  const result = Bun.spawnSync([...command], { stderr: "pipe" });
  return `${result.stdout}${result.stderr}`.trim().split("\n")[0]?.trim() ?? "";
}

function machine(): string {
  const model = /model name\s*:\s*(.*)/.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1] ?? "?";
  return `${cpus().length} × ${model}, Linux ${release()}`;
}

function versions(withEnvoy: boolean): Record<string, string> {
  return {
    weft: version([WEFT, "version"]),
    haproxy: version(["haproxy", "-v"]),
    nginx: version(["nginx", "-v"]),
    ...(withEnvoy ? { envoy: `envoy ${/\d+\.\d+\.\d+/.exec(version([ENVOY, "--version"]))}` } : {}),
    wrk: version(["wrk", "-v"]).replace(/ Copyright.*/, ""),
    ...(hasFortio() ? { fortio: `fortio ${version([FORTIO, "version"])}` } : {}),
  };
}

const folder = `/tmp/weft-bench-${process.pid}`;
const peers = startPeers(folder, ports, LOAD_CORE);
const envoy = startEnvoy(folder, ports);
if (envoy === undefined) say("envoy: skipped, not installed\n");
const scenarios: Scenario[] = [];
let mesh: BenchMesh | undefined;
try {
  const answers = async (port: number) => (await fetch(`http://127.0.0.1:${port}/`)).ok;
  await until("nginx answers", () => answers(ports.nginxFront));
  await until("haproxy answers", () => answers(ports.haproxyFront));
  if (envoy !== undefined) await until("envoy answers", () => answers(ports.envoyFront));
  mesh = await startMesh(ports);
  const { slices, seconds } = { slices: Number(flags.slices), seconds: Number(flags.seconds) };
  const arena = { ports, folder, peers, envoy, mesh, slices, seconds, say };
  for (const [name, measure] of Object.entries(SCENARIOS)) {
    if (positionals.length > 0 && !positionals.includes(name)) continue;
    scenarios.push(...(await measure(arena)));
  }
} finally {
  await mesh?.mesh.stop();
  const children = [...peers.all, ...(envoy === undefined ? [] : [envoy.front, envoy.mesh])];
  for (const child of children) await child.stop();
}
const report = { machine: machine(), versions: versions(envoy !== undefined), scenarios };
console.log(flags.json ? reportJson(report) : reportText(report));
process.exit(scenarios.some(({ failed }) => failed > 0) ? 1 : 0);
