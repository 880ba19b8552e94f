/** What is compared: each scenario names its contenders, its figure and its budget. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { sniOf } from "../../src/identity/spiffe.ts";
import { openFilesMax } from "../../src/std/open-files.ts";
import type { Sidecar } from "../../test/harness/mesh.ts";
import type { ClientTask } from "./client.ts";
import type { EnvoyProcesses } from "./envoy.ts";
import { fortio, handshakes, hasFortio, holding, iperf, wrk } from "./load.ts";
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
import type { BenchMesh } from "./meshes.ts";
import type { PeerProcesses, Ports } from "./peers.ts";
import { type MemoryFigure, memoryOf, startTimes } from "./process.ts";
import type { Scenario } from "./report.ts";

/** Everything that runs while scenarios are measured. */
export interface Arena {
  readonly ports: Ports;
  readonly folder: string;
  readonly peers: PeerProcesses;
  /** Undefined where it could not be installed. */
  readonly envoy: EnvoyProcesses | undefined;
  readonly mesh: BenchMesh;
  readonly slices: number;
  readonly seconds: number;
  readonly say: (text: string) => void;
}

export const SCENARIOS: Readonly<Record<string, (arena: Arena) => Promise<readonly Scenario[]>>> = {
  "h1-plain-1hop": plainOneHop,
  "h1-mtls-2hop": mtlsTwoHops,
  "h1-mtls-2hop-full": mtlsTwoHopsFull,
  "tcp-plain-1hop": tcpOneHop,
  "tcp-mtls-2hop": tcpTwoHops,
  handshakes: newConnections,
  "latency-2000rps": latency,
  memory,
  start,
  // Last: the peers keep what they took for it.
  "idle-10k": idle,
};

interface Comparison {
  readonly name: string;
  readonly unit: string;
  readonly contenders: readonly (Contender | undefined)[];
  readonly of: (sample: Sample) => number;
  readonly better: "lower" | "higher";
  readonly budgets: Readonly<Record<string, number>>;
}

async function take(arena: Arena, name: string, contenders: readonly Contender[]) {
  const { slices, seconds, say } = arena;
  const samples = await interleave(contenders, slices, seconds, Math.random, (round) =>
    say(`\r${name}: slice ${round + 1} of ${slices} `),
  );
  say("\n");
  return samples;
}

/** The worst of several verdicts; without any budget the question is open. */
function together(verdicts: readonly Verdict[]): Verdict {
  if (verdicts.length === 0) return "open";
  return verdicts.find((v) => v === "missed") ?? verdicts.find((v) => v === "open") ?? "met";
}

async function compare(arena: Arena, comparison: Comparison): Promise<readonly Scenario[]> {
  const { name, of, better, budgets } = comparison;
  const contenders = comparison.contenders.filter((c) => c !== undefined);
  const samples = await take(arena, name, contenders);
  const ours = samples.get("weft") ?? [];
  const peers: Record<string, number> = {};
  const ratios: Record<string, Interval> = {};
  for (const [peer, list] of samples) {
    if (peer === "weft") continue;
    peers[peer] = median(list.map(of));
    ratios[peer] = interval(pairRatios(ours, list, of), Math.random);
  }
  const held = Object.entries(budgets).filter(([peer]) => ratios[peer] !== undefined);
  return [
    {
      name,
      unit: comparison.unit,
      ours: median(ours.map(of)),
      peers,
      ratios,
      verdict: together(
        held.map(([peer, budget]) => verdictOf(ratios[peer] as Interval, budget, better)),
      ),
      budget: held
        .map(([peer, budget]) => `${better === "lower" ? "≤" : "≥"} ${budget} × ${peer}`)
        .join(", "),
      failed: ours.reduce((sum, sample) => sum + sample.failed, 0),
    },
  ];
}

/** Contenders of one kind of load, by name: which processes count, and where the load goes. */
function contender(
  name: string,
  pids: readonly number[],
  load: (seconds: number) => ReturnType<Contender["load"]>,
): Contender {
  return { name, pids: () => pids, load };
}

function at(port: number): string {
  return `http://127.0.0.1:${port}/`;
}

const CPU: Pick<Comparison, "unit" | "of" | "better"> = {
  unit: "CPU µs per request",
  of: (sample) => sample.cpu,
  better: "lower",
};

function plainOneHop(arena: Arena): Promise<readonly Scenario[]> {
  const { ports, peers, envoy, mesh } = arena;
  return compare(arena, {
    name: "h1-plain-1hop",
    ...CPU,
    contenders: [
      contender("weft", [mesh.plain.pid], (time) => wrk(mesh.plain.outbound, time, "legacy")),
      contender("haproxy", [peers.haproxyFront.pid], (time) => wrk(at(ports.haproxyPlain), time)),
      contender("nginx", [peers.nginxFront.pid], (time) => wrk(at(ports.nginxPlain), time)),
      envoy && contender("envoy", [envoy.front.pid], (time) => wrk(at(ports.envoyPlain), time)),
    ],
    budgets: { haproxy: 1.0, envoy: 0.4 },
  });
}

function twoHops({ ports, peers, envoy, mesh }: Arena) {
  return {
    weft: contender("weft", [mesh.front.pid, mesh.back.pid], (time) =>
      wrk(mesh.front.outbound, time, "back:8080"),
    ),
    haproxy: contender("haproxy", [peers.haproxyFront.pid, peers.haproxyMesh.pid], (time) =>
      wrk(at(ports.haproxyFront), time),
    ),
    nginx: contender("nginx", [peers.nginxFront.pid, peers.nginxMesh.pid], (time) =>
      wrk(at(ports.nginxFront), time),
    ),
    envoy:
      envoy &&
      contender("envoy", [envoy.front.pid, envoy.mesh.pid], (time) =>
        wrk(at(ports.envoyFront), time),
      ),
  };
}

function mtlsTwoHops(arena: Arena): Promise<readonly Scenario[]> {
  const { weft, haproxy, nginx } = twoHops(arena);
  return compare(arena, {
    name: "h1-mtls-2hop",
    ...CPU,
    contenders: [weft, haproxy, nginx],
    budgets: { haproxy: 1.0 },
  });
}

/** weft has no bare mode: what differs from `h1-mtls-2hop` is that Envoy does the same. */
function mtlsTwoHopsFull(arena: Arena): Promise<readonly Scenario[]> {
  const { weft, haproxy, envoy } = twoHops(arena);
  return compare(arena, {
    name: "h1-mtls-2hop-full",
    ...CPU,
    contenders: [weft, haproxy, envoy],
    budgets: { haproxy: 0.8, envoy: 0.25 },
  });
}

const THROUGHPUT: Pick<Comparison, "unit" | "of" | "better"> = {
  unit: "Gb/s",
  of: (sample) => sample.rate,
  better: "higher",
};

function tcpOneHop(arena: Arena): Promise<readonly Scenario[]> {
  const { ports, peers, envoy, mesh } = arena;
  const bytes = (name: string, pid: number, port: number) =>
    contender(name, [pid], (time) => iperf(port, time));
  return compare(arena, {
    name: "tcp-plain-1hop",
    ...THROUGHPUT,
    contenders: [
      bytes("weft", mesh.plain.pid, mesh.plainTcpPort),
      bytes("haproxy", peers.haproxyFront.pid, ports.haproxyTcpPlain),
      envoy && bytes("envoy", envoy.front.pid, ports.envoyTcpPlain),
    ],
    budgets: { haproxy: 1.0 },
  });
}

function tcpTwoHops(arena: Arena): Promise<readonly Scenario[]> {
  const { ports, peers, envoy, mesh } = arena;
  const bytes = (name: string, pids: readonly number[], port: number) =>
    contender(name, pids, (time) => iperf(port, time));
  return compare(arena, {
    name: "tcp-mtls-2hop",
    ...THROUGHPUT,
    contenders: [
      bytes("weft", [mesh.front.pid, mesh.back.pid], mesh.tcpPort),
      bytes("haproxy", [peers.haproxyFront.pid, peers.haproxyMesh.pid], ports.haproxyTcpFront),
      envoy && bytes("envoy", [envoy.front.pid, envoy.mesh.pid], ports.envoyTcpFront),
    ],
    budgets: { haproxy: 1.3 },
  });
}

/** A client's half of the TLS connection to each proxy's inner hop. */
/** How a client passes for `caller` at another proxy's mesh port. */
export function meshTls(caller: Sidecar, serverName: string): NonNullable<ClientTask["tls"]> {
  const { svid, bundle } = JSON.parse(readFileSync(join(caller.data, "identity.json"), "utf8")) as {
    svid: { chainPem: string; keyPem: string };
    bundle: string[];
  };
  return { cert: svid.chainPem, key: svid.keyPem, ca: bundle, serverName, alpn: "http/1.1" };
}

function clientTls(arena: Arena) {
  const { folder, mesh } = arena;
  const read = (name: string) => readFileSync(join(folder, name), "utf8");
  const bench = { cert: read("leaf.pem"), key: read("leaf.key"), ca: [read("root.pem")] };
  return {
    weft: meshTls(mesh.front, sniOf(8080, "back", "default", "weft.local")),
    peer: { ...bench, serverName: "leaf.bench", alpn: "" },
    envoy: { ...bench, serverName: "leaf.bench", alpn: "http/1.1" },
  };
}

function newConnections(arena: Arena): Promise<readonly Scenario[]> {
  const { ports, peers, envoy, mesh } = arena;
  const tls = clientTls(arena);
  const shake = (name: string, pid: number, task: Omit<ClientTask, "kind">) =>
    contender(name, [pid], (time) => handshakes(task, time));
  return compare(arena, {
    name: "handshakes",
    unit: "CPU µs per handshake",
    of: (sample) => sample.cpu,
    better: "lower",
    contenders: [
      shake("weft", mesh.back.pid, { port: mesh.back.meshPort, tls: tls.weft }),
      shake("haproxy", peers.haproxyMesh.pid, { port: ports.haproxyMesh, tls: tls.peer }),
      shake("nginx", peers.nginxMesh.pid, { port: ports.nginxMesh, tls: tls.peer }),
      envoy && shake("envoy", envoy.mesh.pid, { port: ports.envoyMesh, tls: tls.envoy }),
    ],
    budgets: {},
  });
}

/** What two hops add to a direct call, milliseconds, at a load that nobody finds hard. */
async function latency(arena: Arena): Promise<readonly Scenario[]> {
  const { ports, peers, envoy, mesh } = arena;
  if (!hasFortio()) {
    arena.say("latency-2000rps: skipped, fortio is not installed and needs Go\n");
    return [];
  }
  const call = (name: string, port: number) =>
    contender(name, [peers.backend.pid], (time) => fortio(at(port), time));
  const contenders = [
    call("direct", ports.backend),
    contender("weft", [mesh.front.pid], (time) => fortio(mesh.front.outbound, time, "back:8080")),
    call("haproxy", ports.haproxyFront),
    call("nginx", ports.nginxFront),
    envoy && call("envoy", ports.envoyFront),
  ].filter((c) => c !== undefined);
  const samples = await take(arena, "latency-2000rps", contenders);
  const added = (name: string, of: (sample: Sample) => number | undefined) =>
    (samples.get(name) ?? []).map(
      (sample, round) =>
        (of(sample) ?? Number.NaN) - (of(samples.get("direct")![round]!) ?? Number.NaN),
    );
  const row = (name: string, of: (sample: Sample) => number | undefined, budget?: number) => {
    const ours = added("weft", of);
    const peersAdded = contenders.filter((c) => c.name !== "weft" && c.name !== "direct");
    return {
      ...single(name, "ms added", ours, budget ?? Number.POSITIVE_INFINITY),
      peers: Object.fromEntries(peersAdded.map((c) => [c.name, median(added(c.name, of))])),
      ...(budget === undefined ? { budget: "", verdict: "open" as const } : {}),
      failed: (samples.get("weft") ?? []).reduce((sum, sample) => sum + sample.failed, 0),
    };
  };
  return [
    row("latency-2000rps", (sample) => sample.p50Ms, 0.25),
    row("latency-2000rps-p99", (sample) => sample.p99Ms),
  ];
}

/**
 * HAProxy takes half of the descriptors for its other side, whether it dials or not; weft's mesh port
 * leaves an eighth of its half to other callers.
 */
export const IDLE = Math.min(10_000, Math.floor((openFilesMax() * 7) / 16) - 200);
export const PLAIN_KB = 8;
export const MTLS_KB = 30;

/** Resident memory that each of many connections costs on which nothing happens, kilobytes. */
async function idle(arena: Arena): Promise<readonly Scenario[]> {
  const { ports, peers, envoy, mesh } = arena;
  const tls = clientTls(arena);
  const cost = async (pid: number, task: Omit<ClientTask, "kind">) => {
    const before = memoryOf(pid).rss;
    return holding(task, IDLE, async (open) => {
      await Bun.sleep(3_000);
      if (open < IDLE) throw new Error(`only ${open} of ${IDLE} connections are open`);
      return ((memoryOf(pid).rss - before) * 1024) / open;
    });
  };
  const row = async (
    name: string,
    budget: number,
    ours: readonly [Sidecar, Omit<ClientTask, "kind">],
    others: Readonly<Record<string, readonly [number, Omit<ClientTask, "kind">] | undefined>>,
  ) => {
    arena.say(`${name}\n`);
    const figure = await cost(ours[0].pid, ours[1]);
    const beside: Record<string, number> = {};
    for (const [peer, entry] of Object.entries(others)) {
      if (entry !== undefined) beside[peer] = await cost(entry[0], entry[1]);
    }
    return single(name, "KB each", [figure], budget, beside);
  };
  return [
    await row("idle-10k", PLAIN_KB, [mesh.plain, { port: mesh.plain.outboundPort }], {
      haproxy: [peers.haproxyFront.pid, { port: ports.haproxyPlain }],
      nginx: [peers.nginxFront.pid, { port: ports.nginxPlain }],
      envoy: envoy && [envoy.front.pid, { port: ports.envoyPlain }],
    }),
    await row("idle-10k-mtls", MTLS_KB, [mesh.back, { port: mesh.back.meshPort, tls: tls.weft }], {
      haproxy: [peers.haproxyMesh.pid, { port: ports.haproxyMesh, tls: tls.peer }],
      nginx: [peers.nginxMesh.pid, { port: ports.nginxMesh, tls: tls.peer }],
      envoy: envoy && [envoy.mesh.pid, { port: ports.envoyMesh, tls: tls.envoy }],
    }),
  ];
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

async function memory({ mesh, peers, envoy }: Arena): Promise<readonly Scenario[]> {
  const fleet: MemoryFigure[] = [];
  const extra = [];
  for (let i = 0; i < 5; i++) extra.push(await mesh.mesh.sidecar({ service: `idle-${i}` }));
  await Bun.sleep(5_000);
  for (const sidecar of extra) fleet.push(memoryOf(sidecar.pid));
  const others: Record<string, MemoryFigure> = {
    haproxy: memoryOf(peers.haproxyMesh.pid),
    nginx: memoryOf(peers.nginxMesh.pid),
    ...(envoy === undefined ? {} : { envoy: memoryOf(envoy.mesh.pid) }),
  };
  const of = (key: keyof MemoryFigure) => fleet.map((figure) => figure[key]);
  const beside = (key: keyof MemoryFigure) =>
    Object.fromEntries(Object.entries(others).map(([name, figure]) => [name, figure[key]]));
  return [
    single("memory", "MB PSS", of("pss"), 20, beside("pss")),
    single("memory-anonymous", "MB", of("anonymous"), 15, beside("anonymous")),
    single("memory-rss", "MB RSS", of("rss"), 100, beside("rss")),
  ];
}

async function start({ mesh }: Arena): Promise<readonly Scenario[]> {
  return [single("start", "ms", await startTimes(mesh.mesh, 12), 150)];
}
