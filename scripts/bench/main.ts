/** `scripts/bench.sh`: runs the scenarios and prints a table, or JSON with `--json`. */
import { readFileSync } from "node:fs";
import { cpus, release } from "node:os";
import { parseArgs } from "node:util";
import { takePorts, until, WEFT } from "../../test/harness/mesh.ts";
import { iperf, LOAD_CORE, wrk } from "./load.ts";
import {
  type Contender,
  type Interval,
  interleave,
  interval,
  median,
  pairRatios,
  type Sample,
  type Verdict,
  verdictOf,
} from "./measure.ts";
import { type BenchMesh, startMesh } from "./meshes.ts";
import { type PeerProcesses, type Ports, startPeers } from "./peers.ts";
import { type MemoryFigure, memoryOf, startTimes } from "./process.ts";

interface Scenario {
  readonly name: string;
  readonly unit: string;
  readonly ours: number;
  readonly peers: Readonly<Record<string, number>>;
  readonly ratios: Readonly<Record<string, Interval>>;
  readonly verdict: Verdict;
  readonly budget: string;
  readonly failed: number;
}

const { values: flags, positionals } = parseArgs({
  options: {
    json: { type: "boolean", default: false },
    slices: { type: "string", default: "15" },
    seconds: { type: "string", default: "3" },
  },
  allowPositionals: true,
});
const slices = Number(flags.slices);
const seconds = Number(flags.seconds);
const wanted = (name: string) => positionals.length === 0 || positionals.includes(name);
const say = (text: string) => process.stderr.write(text);

const base = takePorts(20);
const ports: Ports = {
  backend: base,
  haproxyPlain: base + 1,
  haproxyFront: base + 2,
  haproxyMesh: base + 3,
  haproxyTcpFront: base + 4,
  haproxyTcpMesh: base + 5,
  nginxPlain: base + 6,
  nginxFront: base + 7,
  nginxMesh: base + 8,
  iperf: base + 9,
};

function http(name: string, url: string, pids: readonly number[], host?: string): Contender {
  return { name, pids: () => pids, load: (time) => wrk(url, time, host) };
}

function at(port: number): string {
  return `http://127.0.0.1:${port}/`;
}

interface Comparison {
  readonly name: string;
  readonly unit: string;
  readonly contenders: readonly Contender[];
  readonly of: (sample: Sample) => number;
  readonly better: "lower" | "higher";
  readonly budgets: Readonly<Record<string, number>>;
}

async function compare(comparison: Comparison): Promise<Scenario> {
  const { name, contenders, of, better, budgets } = comparison;
  const samples = await interleave(contenders, slices, seconds, Math.random, (round) =>
    say(`\r${name}: slice ${round + 1} of ${slices} `),
  );
  say("\n");
  const ours = samples.get("weft") ?? [];
  const peers: Record<string, number> = {};
  const ratios: Record<string, Interval> = {};
  for (const [peer, list] of samples) {
    if (peer === "weft") continue;
    peers[peer] = median(list.map(of));
    ratios[peer] = interval(pairRatios(ours, list, of), Math.random);
  }
  const verdicts = Object.entries(budgets).map(([peer, budget]) =>
    verdictOf(ratios[peer] as Interval, budget, better),
  );
  return {
    name,
    unit: comparison.unit,
    ours: median(ours.map(of)),
    peers,
    ratios,
    verdict: verdicts.find((v) => v === "missed") ?? verdicts.find((v) => v === "open") ?? "met",
    budget: Object.entries(budgets)
      .map(([peer, budget]) => `${better === "lower" ? "≤" : "≥"} ${budget} × ${peer}`)
      .join(", "),
    failed: ours.reduce((sum, sample) => sum + sample.failed, 0),
  };
}

function plainOneHop(mesh: BenchMesh, peers: PeerProcesses): Promise<Scenario> {
  return compare({
    name: "h1-plain-1hop",
    unit: "CPU µs per request",
    contenders: [
      http("weft", mesh.plain.outbound, [mesh.plain.pid], "legacy"),
      http("haproxy", at(ports.haproxyPlain), [peers.haproxyFront.pid]),
      http("nginx", at(ports.nginxPlain), [peers.nginxFront.pid]),
    ],
    of: (sample) => sample.cpu,
    better: "lower",
    budgets: { haproxy: 1.3 },
  });
}

function mtlsTwoHops(mesh: BenchMesh, peers: PeerProcesses): Promise<Scenario> {
  return compare({
    name: "h1-mtls-2hop",
    unit: "CPU µs per request",
    contenders: [
      http("weft", mesh.front.outbound, [mesh.front.pid, mesh.back.pid], "back:8080"),
      http("haproxy", at(ports.haproxyFront), [peers.haproxyFront.pid, peers.haproxyMesh.pid]),
      http("nginx", at(ports.nginxFront), [peers.nginxFront.pid, peers.nginxMesh.pid]),
    ],
    of: (sample) => sample.cpu,
    better: "lower",
    budgets: { haproxy: 1.0 },
  });
}

function tcpTwoHops(mesh: BenchMesh, peers: PeerProcesses): Promise<Scenario> {
  const bytes = (name: string, port: number, pids: readonly number[]): Contender => ({
    name,
    pids: () => pids,
    load: (time) => iperf(port, time),
  });
  return compare({
    name: "tcp-mtls-2hop",
    unit: "Gb/s",
    contenders: [
      bytes("weft", mesh.tcpPort, [mesh.front.pid, mesh.back.pid]),
      bytes("haproxy", ports.haproxyTcpFront, [peers.haproxyFront.pid, peers.haproxyMesh.pid]),
    ],
    of: (sample) => sample.rate,
    better: "higher",
    budgets: { haproxy: 1.3 },
  });
}

function single(
  name: string,
  unit: string,
  values: readonly number[],
  budget: number,
  peers: Readonly<Record<string, number>> = {},
): Scenario {
  const figure = interval(values, Math.random);
  return {
    name,
    unit,
    ours: figure.median,
    peers,
    ratios: {},
    verdict: verdictOf(figure, budget, "lower"),
    budget: `≤ ${budget} ${unit}`,
    failed: 0,
  };
}

async function memory(mesh: BenchMesh, peers: PeerProcesses): Promise<Scenario[]> {
  const fleet: MemoryFigure[] = [];
  const extra = [];
  for (let i = 0; i < 5; i++) extra.push(await mesh.mesh.sidecar({ service: `idle-${i}` }));
  await Bun.sleep(5_000);
  for (const sidecar of extra) fleet.push(memoryOf(sidecar.pid));
  const haproxy = memoryOf(peers.haproxyMesh.pid);
  const nginx = memoryOf(peers.nginxMesh.pid);
  const of = (key: keyof MemoryFigure) => fleet.map((figure) => figure[key]);
  const beside = (key: keyof MemoryFigure) => ({ haproxy: haproxy[key], nginx: nginx[key] });
  return [
    single("memory", "MB PSS", of("pss"), 20, beside("pss")),
    single("memory-anonymous", "MB", of("anonymous"), 15, beside("anonymous")),
    single("memory-rss", "MB RSS", of("rss"), 100, beside("rss")),
  ];
}

function version(command: readonly string[]): string {
  const result = Bun.spawnSync([...command], { stderr: "pipe" });
  return `${result.stdout}${result.stderr}`.split("\n")[0]?.trim() ?? "";
}

function machine(): string {
  const model = /model name\s*:\s*(.*)/.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1] ?? "?";
  return `${cpus().length} × ${model}, Linux ${release()}`;
}

function versions(): Record<string, string> {
  return {
    weft: version([WEFT, "version"]),
    haproxy: version(["haproxy", "-v"]),
    nginx: version(["nginx", "-v"]),
    wrk: version(["wrk", "-v"]).replace(/ Copyright.*/, ""),
  };
}

function table(scenarios: readonly Scenario[]): string {
  const number = (value: number) => (value >= 100 ? value.toFixed(0) : value.toFixed(2));
  const rows = scenarios.map((scenario) => {
    const peers = Object.entries(scenario.peers).map(([peer, value]) => {
      const ratio = scenario.ratios[peer];
      const shown =
        ratio === undefined
          ? ""
          : ` (${ratio.median.toFixed(2)} × [${ratio.lo.toFixed(2)}, ${ratio.hi.toFixed(2)}])`;
      return `${peer} ${number(value)}${shown}`;
    });
    const failed = scenario.failed > 0 ? `, ${scenario.failed} FAILED` : "";
    return [
      scenario.name.padEnd(18),
      `${number(scenario.ours)} ${scenario.unit}`.padEnd(28),
      peers.join("; ").padEnd(66),
      `${scenario.verdict} (${scenario.budget})${failed}`,
    ].join("");
  });
  return rows.join("\n");
}

const folder = `/tmp/weft-bench-${process.pid}`;
const peers = startPeers(folder, ports, LOAD_CORE);
const scenarios: Scenario[] = [];
let bench: BenchMesh | undefined;
try {
  await until("the peers answer", async () => (await fetch(at(ports.nginxFront))).ok);
  await until("haproxy answers", async () => (await fetch(at(ports.haproxyFront))).ok);
  bench = await startMesh(ports);
  if (wanted("h1-plain-1hop")) scenarios.push(await plainOneHop(bench, peers));
  if (wanted("h1-mtls-2hop")) scenarios.push(await mtlsTwoHops(bench, peers));
  if (wanted("tcp-mtls-2hop")) scenarios.push(await tcpTwoHops(bench, peers));
  if (wanted("memory")) scenarios.push(...(await memory(bench, peers)));
  if (wanted("start")) {
    const times = await startTimes(bench.mesh, 12);
    scenarios.push(single("start", "ms", times, 150));
  }
} finally {
  await bench?.mesh.stop();
  for (const child of peers.all) await child.stop();
}
if (flags.json) {
  console.log(JSON.stringify({ machine: machine(), versions: versions(), scenarios }, null, 2));
} else {
  console.log(`${machine()}\n${Object.values(versions()).join(" · ")}\n`);
  console.log(table(scenarios));
}
process.exit(scenarios.some(({ failed }) => failed > 0) ? 1 : 0);
