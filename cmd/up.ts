/**
 * `weft up FILE`: a whole mesh on this machine, as it would be in production.
 *
 * The control plane, every proxy and every program is an operating-system process of its own.
 * Start: control plane, documents, proxies, then each program when its proxy is alive. Stop: the
 * programs that only call, then the proxies (they drain), then the programs behind them, then the
 * control plane; so no open request loses either of its ends.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import type { StatusAnswer } from "../src/api/answers.ts";
import { parseSources } from "../src/config/parse.ts";
import type { ProcessResource, Resource, Source } from "../src/config/resource.ts";
import { validateSet } from "../src/config/validate.ts";
import { EXIT, Failure } from "../src/error.ts";
import { type Client, createClient } from "./cli/client.ts";
import { printIssues } from "./cli/issues.ts";
import { text } from "./cli/json.ts";
import { locate } from "./cli/locate.ts";
import { readSources } from "./cli/sources.ts";
import { type Column, table } from "./cli/table.ts";
import { paint, type Terminal } from "./cli/terminal.ts";
import { childEnvironment, type Environment } from "./environment.ts";
import { usage } from "./grammar.ts";
import { Child, type ChildEvents } from "./up/child.ts";
import { forgetChildren, killLeftovers, noteChildren } from "./up/leftovers.ts";
import { type Plan, type ProgramPlan, type ProxyPlan, planProcesses } from "./up/plan.ts";
import { freePort, metricsOf, serviceDocuments, takeFolder, waitFor } from "./up/surroundings.ts";

export interface UpOptions {
  readonly file: string;
  readonly data: string;
  readonly portBase: number;
  readonly accessLog: boolean;
  /** Longest wait of each proxy for what is open when it stops. */
  readonly drainMs: number;
  readonly logLevel: string;
  readonly env: Environment;
}

const CONTROLPLANE_WAIT_MS = 20_000;
const PROXY_WAIT_MS = 20_000;
const STOP_PROGRAM_MS = 5_000;
/** Beyond its drain, for leaving the registry and closing. */
const STOP_PROXY_MS = 5_000;
const STOP_CONTROLPLANE_MS = 5_000;

export async function runUp(options: UpOptions, terminal: Terminal): Promise<number> {
  const sources = await readSources([options.file], terminal);
  const documents = readDocuments(sources, terminal);
  if (documents === undefined) return EXIT.refused;
  const plan = planProcesses({
    processes: documents.processes,
    portBase: options.portBase,
    data: options.data,
    freePort,
  });
  using _lock = takeFolder(options.data);
  const up = new Up(options, plan, terminal);
  const stopped = new Promise<string>((tell) => {
    let asked = 0;
    const ask = () => {
      asked++;
      if (asked === 1) return tell("stopping");
      up.killAll();
    };
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, ask);
  });
  try {
    const outcome = await Promise.race([up.start(documents.resources), stopped]);
    if (outcome === undefined) await Promise.race([stopped, up.allDone()]);
    terminal.err("stopping …\n");
    return EXIT.ok;
  } finally {
    await up.stop();
  }
}

interface Documents {
  readonly resources: readonly Resource[];
  readonly processes: readonly ProcessResource[];
}

/** Reads and checks everything before anything is started. */
function readDocuments(sources: readonly Source[], terminal: Terminal): Documents | undefined {
  const parsed = parseSources(sources);
  const all = parsed.resources.map((entry) => entry.resource);
  const processes = all.filter((resource) => resource.kind === "Process");
  const written = all.filter((resource) => resource.kind !== "Process");
  const resources = [...written, ...serviceDocuments(written, processes)];
  const changed = parsed.resources.filter((entry) => entry.resource.kind !== "Process");
  const issues =
    parsed.issues.length > 0 ? parsed.issues : validateSet(resources, changed, { lenient: false });
  if (issues.length > 0) {
    printIssues(terminal, issues, sources);
    return undefined;
  }
  if (processes.length === 0) {
    throw usage(
      `${sources[0]?.name}: no document of kind Process`,
      "name the programs to run, or start parts: weft controlplane, weft sidecar",
    );
  }
  return { resources, processes };
}

/** Changes nothing, and is applied so that what an earlier run left behind goes. */
const PLAIN_MESH = { apiVersion: "weft.dev/v1", kind: "Mesh", metadata: { name: "mesh" } } as const;

class Up {
  readonly #options: UpOptions;
  readonly #plan: Plan;
  readonly #terminal: Terminal;
  readonly #children: Child[] = [];
  readonly #proxies = new Map<string, Child>();
  readonly #programs = new Map<string, Child>();
  readonly #width: number;
  #controlplane: Child | undefined;
  #stopping = false;
  #done: (() => void) | undefined;

  constructor(options: UpOptions, plan: Plan, terminal: Terminal) {
    this.#options = options;
    this.#plan = plan;
    this.#terminal = terminal;
    const names = ["controlplane", ...[...plan.proxies, ...plan.programs].map(({ name }) => name)];
    this.#width = Math.max(...names.map((name) => name.length));
  }

  async start(resources: readonly Resource[]): Promise<undefined> {
    const startedAt = this.#terminal.now();
    const left = killLeftovers(this.#options.data);
    if (left > 0) this.#say(`ended ${left} processes that an earlier run left behind`);
    const client = await this.#startControlplane();
    await this.#apply(client, resources);
    const units = this.#plan.proxies.map(async (proxy) => {
      await this.#startProxy(proxy, client);
      for (const program of this.#plan.programs) {
        if (program.proxy === proxy.name) this.#startProgram(program);
      }
    });
    await Promise.all(units);
    await this.#waitReady();
    await this.#waitAcquainted(client);
    for (const child of this.#children) child.settle();
    this.#summary((this.#terminal.now() - startedAt) / 1000, client.url);
    return undefined;
  }

  async #startControlplane(): Promise<Client> {
    const { data, portBase } = this.#options;
    const folder = join(data, "controlplane");
    const child = this.#child("controlplane", data, ownEnvironment(this.#options.env), [
      ...selfCommand(),
      "controlplane",
      `--data=${folder}`,
      `--port-base=${portBase}`,
      `--log-level=${this.#options.logLevel}`,
      "--log=text",
    ]);
    this.#controlplane = child;
    this.#launch(child);
    const settings = { data: folder, controlplane: `https://127.0.0.1:${portBase + 10}` };
    return waitFor("the control plane", CONTROLPLANE_WAIT_MS, child, async () => {
      const client = createClient(locate(settings, {}, 0));
      await client.get("/v1/status");
      child.settle();
      return client;
    });
  }

  async #apply(client: Client, resources: readonly Resource[]): Promise<void> {
    const name = this.#options.file;
    const all = resources.length === 0 ? [PLAIN_MESH] : resources;
    const sources = [{ name, text: all.map((one) => JSON.stringify(one)).join("\n---\n") }];
    const answer = await client.post("/v1/apply", {
      sources,
      prune: true,
      message: `weft up ${name}`,
    });
    const revision = text(answer, "revision");
    if (revision !== "") this.#say(`configuration applied, revision ${revision}`);
  }

  async #startProxy(proxy: ProxyPlan, client: Client): Promise<void> {
    const token = await this.#tokenFile(proxy, client);
    const common = [
      `--data=${proxy.data}`,
      `--port-base=${proxy.portBase}`,
      `--controlplane=${client.url}`,
      `--token-file=${token}`,
      "--bind=127.0.0.1",
      "--advertise=127.0.0.1",
      `--drain=${this.#options.drainMs}ms`,
      `--health=${proxy.health}`,
      `--access-log=${this.#options.accessLog ? "on" : "off"}`,
      `--log-level=${this.#options.logLevel}`,
      "--log=text",
    ];
    const own = proxy.mode === "node" ? this.#nodeArguments(proxy) : sidecarArguments(proxy);
    const command = [...selfCommand(), proxy.mode, ...own, ...common];
    const child = this.#child(
      proxy.name,
      this.#options.data,
      ownEnvironment(this.#options.env),
      command,
    );
    this.#proxies.set(proxy.name, child);
    this.#launch(child);
    await waitFor(proxy.name, PROXY_WAIT_MS, child, async () => {
      const answer = await fetch(`http://${metricsOf(proxy)}/healthz`);
      if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    });
  }

  #nodeArguments(proxy: ProxyPlan): readonly string[] {
    mkdirSync(proxy.data, { recursive: true, mode: 0o700 });
    const file = join(proxy.data, "workloads.json");
    writeFileSync(file, JSON.stringify(proxy.workloads, null, 2), { mode: 0o600 });
    return [`--workloads=${file}`];
  }

  /** A token for the services of this proxy only, in a file of its own. */
  async #tokenFile(proxy: ProxyPlan, client: Client): Promise<string> {
    const folder = join(this.#options.data, "tokens");
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const answer = await client.post("/v1/tokens", {
      kind: "join",
      namespace: proxy.workloads[0]?.namespace ?? "default",
      services: proxy.workloads.map(({ service }) => service),
    });
    const file = join(folder, proxy.name);
    writeFileSync(file, text(answer, "token"), { mode: 0o600 });
    return file;
  }

  #startProgram(program: ProgramPlan): void {
    const env = childEnvironment(this.#options.env, program.env);
    const cwd = dirname(resolve(this.#options.file));
    const child = this.#child(program.name, cwd, env, program.command);
    this.#programs.set(program.name, child);
    this.#launch(child);
  }

  async #waitReady(): Promise<void> {
    const waits = this.#plan.proxies.map((proxy) => {
      const child = this.#proxies.get(proxy.name)!;
      const programs = this.#plan.programs.filter((program) => program.proxy === proxy.name);
      const watched = [child, ...programs.map((program) => this.#programs.get(program.name)!)];
      const ready = async () => {
        const answer = await fetch(`http://${metricsOf(proxy)}/readyz`);
        if (!answer.ok) throw new Error((await answer.text()).trim().split("\n")[0]);
      };
      return waitFor(proxy.name, PROXY_WAIT_MS, watched, ready, (why) =>
        this.#say(`still waiting for ${proxy.name}: ${why}`),
      );
    });
    await Promise.all(waits);
  }

  /**
   * Every proxy knows every endpoint, so that the first call of a newcomer finds its service. An
   * endpoint is published a moment after its registration: the same revision is seen twice.
   */
  async #waitAcquainted(client: Client): Promise<void> {
    let seen = -1;
    await waitFor("the proxies", PROXY_WAIT_MS, [], async () => {
      const { bus, proxies } = await client.get<StatusAnswer>("/v1/status");
      const before = seen;
      seen = bus.rev;
      if (before !== seen) throw new Error(`revision ${seen} of the bus is new`);
      const behind = proxies.find(({ state, ackedRev }) => state === "up" && ackedRev < seen);
      if (behind !== undefined) throw new Error(`${behind.service} has not taken it over`);
    });
  }

  /** Settles when every program has ended well: a mesh of jobs is finished then. */
  allDone(): Promise<void> {
    return new Promise((done) => {
      this.#done = done;
      this.#checkDone();
    });
  }

  #checkDone(): void {
    const programs = [...this.#programs.values()];
    if (programs.every((child) => child.finished)) this.#done?.();
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    const isServer = (name: string) =>
      this.#plan.programs.some((program) => program.name === name && program.app.length > 0);
    const all = [...this.#programs.values()];
    const stopAll = (children: readonly Child[], graceMs: number) =>
      Promise.all(children.map((child) => child.stop(graceMs)));
    await stopAll(
      all.filter((child) => !isServer(child.name)),
      STOP_PROGRAM_MS,
    );
    await stopAll([...this.#proxies.values()], this.#options.drainMs + STOP_PROXY_MS);
    await stopAll(
      all.filter((child) => isServer(child.name)),
      STOP_PROGRAM_MS,
    );
    await this.#controlplane?.stop(STOP_CONTROLPLANE_MS);
    forgetChildren(this.#options.data);
  }

  /** The control plane is only told to stop: killed, it would leave its NATS server behind. */
  killAll(): void {
    for (const child of this.#children) {
      if (child === this.#controlplane) void child.stop(STOP_CONTROLPLANE_MS);
      else child.kill();
    }
  }

  /** Once stopping has begun nothing starts any more: nobody would stop it. */
  #launch(child: Child): void {
    if (this.#stopping) throw new Failure("stopping", "weft up is stopping", "start it again");
    child.start();
  }

  #child(
    name: string,
    cwd: string,
    env: Readonly<Record<string, string>>,
    command: readonly string[],
  ): Child {
    const child = new Child({ name, command, env, cwd }, this.#events(), this.#terminal.now);
    this.#children.push(child);
    return child;
  }

  #events(): ChildEvents {
    return {
      line: (name, line) => this.#terminal.out(`${this.#prefix(name)} ${line}\n`),
      ended: (name, how, againInMs) => {
        const next = againInMs === undefined ? "" : `; starting again in ${againInMs} ms`;
        this.#say(`${name}: ${how}${next}`);
        this.#checkDone();
      },
      changed: () => {
        if (this.#stopping) return;
        const pids = this.#children.flatMap((child) => child.pid ?? []);
        noteChildren(this.#options.data, pids);
      },
    };
  }

  #prefix(name: string): string {
    const label = `${name.padEnd(this.#width)} |`;
    if (!this.#terminal.colours) return label;
    const index = this.#children.findIndex((child) => child.name === name);
    return `\x1b[${31 + ((index + 1) % 6)}m${label}\x1b[0m`;
  }

  #say(message: string): void {
    this.#terminal.err(`${paint(this.#terminal, "bold", "weft up:")} ${message}\n`);
  }

  /** The same in words for people and in up.json for programs. */
  #summary(seconds: number, api: string): void {
    const { programs, proxies } = this.#plan;
    const rows = programs.map((program) => {
      const proxy = proxies.find((candidate) => candidate.name === program.proxy)!;
      return {
        name: program.name,
        service: `${program.namespace}/${program.service}`,
        app: program.app.map(({ host, port }) => `${host}:${port}`),
        mesh: program.mesh,
        upstreams: program.upstreams,
        proxy: proxy.name,
        metrics: `http://${metricsOf(proxy)}/metrics`,
        data: proxy.data,
      };
    });
    const file = join(this.#options.data, "up.json");
    writeFileSync(file, JSON.stringify({ api, processes: rows }, null, 2), { mode: 0o600 });
    this.#say(
      `${programs.length} processes behind ${proxies.length} proxies (${seconds.toFixed(1)} s)`,
    );
    this.#terminal.err(`\n${table(SUMMARY, rows)}\n`);
    const data = join(this.#options.data, "controlplane");
    this.#terminal.err(`control plane ${api}; try: weft status --data ${data}\n\n`);
  }
}

type SummaryRow = Readonly<Record<"name" | "service" | "mesh" | "metrics", string>> &
  Readonly<Record<"app" | "upstreams", readonly string[]>>;

const SUMMARY: readonly Column<SummaryRow>[] = [
  { title: "PROCESS", text: (row) => row.name },
  { title: "SERVICE", text: (row) => row.service },
  { title: "LISTENS", text: (row) => row.app.join(",") },
  { title: "REACHES MESH BY", text: (row) => row.mesh },
  { title: "LOCAL PORTS", text: (row) => row.upstreams.join(", ") },
  { title: "METRICS", text: (row) => row.metrics },
];

function sidecarArguments(proxy: ProxyPlan): readonly string[] {
  const workload = proxy.workloads[0];
  if (workload === undefined) throw new Failure("no_workload", `${proxy.name} is empty`, "");
  return [
    `--service=${workload.service}`,
    `--namespace=${workload.namespace}`,
    `--service-account=${workload.serviceAccount}`,
    ...workload.app.map((app) => `--app=${app}`),
    ...workload.upstream.map((upstream) => `--upstream=${upstream}`),
    ...Object.entries(workload.labels).map(([key, value]) => `--label=${key}=${value}`),
  ];
}

/** How to start this same program: the executable, or the interpreter with its script. */
function selfCommand(): readonly string[] {
  return Bun.main.startsWith("/$bunfs/") ? [process.execPath] : [process.execPath, Bun.main];
}

/** What our own processes inherit: no setting of ours, because theirs are all on the line. */
function ownEnvironment(env: Environment): Record<string, string> {
  const kept = childEnvironment(env);
  for (const name of Object.keys(kept)) if (name.startsWith("WEFT_")) delete kept[name];
  return kept;
}
