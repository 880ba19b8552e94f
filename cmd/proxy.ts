/**
 * A proxy process, as sidecar or for all workloads of a node: the wiring of agents, data plane,
 * probes and admin, and the order in which they start and stop.
 */
import { randomBytes } from "node:crypto";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { type AdminFacts, createAdmin, createAdminSocket } from "../src/admin/admin.ts";
import { EXIT } from "../src/error.ts";
import { Admission } from "../src/net/admission.ts";
import type { Connection } from "../src/net/connection.ts";
import { type Listener, listen } from "../src/net/listen.ts";
import { checkRuntime } from "../src/net/self-test.ts";
import { DataPlane } from "../src/proxy/data-plane.ts";
import { serveApp } from "../src/serve/serve.ts";
import { AccessLog } from "../src/telemetry/access-log.ts";
import { createLogger, type Logger, type LogSink } from "../src/telemetry/log.ts";
import { Metrics } from "../src/telemetry/metrics.ts";
import { METRICS_CALLERS_MAX, proxyRoom, tellTurnedAway } from "./descriptors.ts";
import { guard } from "./guard.ts";
import { pendingMax } from "./memory.ts";
import type { ProxyOptions, WorkloadSpec } from "./options.ts";
import { takeFolder, writeRunFile } from "./proxy/folder.ts";
import { Member } from "./proxy/member.ts";
import { countRefused, observeMembers } from "./proxy/observe.ts";
import { bindExactly, bindNext } from "./proxy/ports.ts";

const OUTBOUND = 1;
const MESH = 6;
const ADMIN = 20;
const OWN_OFFSETS = [OUTBOUND, MESH, 10, ADMIN, 53, 222] as const;
/** How long callers may need to hear that this proxy leaves. */
const DEREGISTER_MS = 1_500;
const GRACE_MS = 500;
/**
 * After the join: what starting left behind is given back, which nobody would do for a quiet proxy.
 * 2 MB of anonymous memory; the runtime does it when it has nothing else to do.
 */
const SETTLED_MS = 500;

/** What was bound, for people and for `run.json`. */
interface Ways {
  readonly mesh: number;
  readonly metrics: string;
  readonly workloads: readonly {
    readonly namespace: string;
    readonly service: string;
    readonly outbound: string;
    readonly upstream: Readonly<Record<string, string>>;
  }[];
}

/**
 * Runs until SIGTERM or SIGINT has drained it; a second one stops it at once.
 *
 * @throws Failure when it cannot start, or the control plane refuses it.
 */
export async function runProxy(options: ProxyOptions): Promise<number> {
  const sink: LogSink = {
    format: options.log,
    level: options.logLevel,
    now: Date.now,
    write: (line) => process.stderr.write(line),
  };
  const log = createLogger(sink);
  const fit = checkRuntime();
  const lock = takeFolder(options.data);
  const stop = Promise.withResolvers<"drain" | "now">();
  const running = new ProxyProcess(options, sink, log, () => stop.resolve("drain"));
  const signalled = () => stop.resolve("drain");
  process.on("SIGTERM", signalled);
  process.on("SIGINT", signalled);
  try {
    running.open();
    await fit;
    const joined = running.join();
    void joined.then(
      () => setTimeout(() => Bun.shrink(), SETTLED_MS),
      () => undefined,
    );
    // A refusal to join ends the process; joining itself may go on for ever.
    await Promise.race([joined.then(() => stop.promise), stop.promise]);
    log.info("draining", { limitMs: options.drainMs });
    process.removeListener("SIGTERM", signalled);
    process.removeListener("SIGINT", signalled);
    const again = Promise.withResolvers<void>();
    process.once("SIGTERM", () => again.resolve());
    process.once("SIGINT", () => again.resolve());
    await Promise.race([running.drain(), again.promise]);
    log.info("stopped");
    return EXIT.ok;
  } finally {
    await running.close();
    lock.release();
  }
}

class ProxyProcess {
  readonly #options: ProxyOptions;
  readonly #sink: LogSink;
  readonly #log: Logger;
  readonly #drainNow: () => void;
  readonly #metrics = new Metrics();
  readonly #proxy: DataPlane;
  readonly #members: readonly Member[];
  /** Where this process listens: no application reaches these through it. */
  readonly #ownPorts: Set<number>;
  #admin: Listener | undefined;
  #socket: { stop(force?: boolean): unknown } | undefined;
  readonly #stopTelling: () => void;
  #draining = false;

  constructor(options: ProxyOptions, sink: LogSink, log: Logger, drainNow: () => void) {
    this.#options = options;
    this.#sink = sink;
    this.#log = log;
    this.#drainNow = drainNow;
    guard(log, this.#metrics);
    this.#members = options.workloads.map((spec) => new Member(options, spec, log));
    this.#ownPorts = new Set(OWN_OFFSETS.map((offset) => options.portBase + offset));
    const accessLog = new AccessLog((text) => process.stdout.write(text), Date.now);
    const descriptors = proxyRoom(options.workloads.length);
    this.#proxy = new DataPlane({
      descriptors,
      pendingMax: pendingMax(),
      metrics: this.#metrics,
      now: () => performance.now(),
      random: Math.random,
      ownPorts: this.#ownPorts,
      ...(options.accessLog ? { accessLog } : {}),
      ...(options.relays === undefined ? {} : { relays: options.relays }),
    });
    this.#stopTelling = tellTurnedAway(() => this.#proxy.turnedAway, descriptors, log);
    observeMembers(this.#metrics, this.#members, options.version);
  }

  /** Binds every port and begins to serve with what the folder holds. */
  open(): void {
    const { bind, portBase, data, mode, version } = this.#options;
    const workloads = this.#members.map((member) => this.#openLocal(member));
    const mesh = bindNext("the mesh port", bind, portBase + MESH, (port) =>
      this.#proxy.listenMesh(bind, port),
    );
    this.#ownPorts.add(mesh);
    const metrics = this.#openAdmin();
    this.#openSocket();
    const ways: Ways = { mesh, metrics, workloads };
    const pid = process.pid;
    writeRunFile(data, { pid, mode, version, ...ways, admin: join(data, "admin.sock") });
    this.#tell(ways);
    const boot = randomBytes(8).toString("hex");
    for (const member of this.#members) member.listening({ boot, meshPort: mesh, metrics });
  }

  /** Resolves when every workload has its identity. */
  async join(): Promise<void> {
    await Promise.all(this.#members.map((member) => member.agent.start()));
  }

  /** Leaves the registry, lets what is under way end, and closes. */
  async drain(): Promise<void> {
    this.#draining = true;
    await Promise.all(this.#members.map((member) => member.leave(DEREGISTER_MS)));
    await this.#proxy.drain(GRACE_MS, this.#options.drainMs);
  }

  async close(): Promise<void> {
    this.#stopTelling();
    this.#proxy.stop();
    await Promise.all(this.#members.map((member) => member.close()));
    this.#admin?.closeAll();
    this.#socket?.stop(true);
    rmSync(join(this.#options.data, "admin.sock"), { force: true });
  }

  #openLocal(member: Member): Ways["workloads"][number] {
    const { spec } = member;
    const local = this.#proxy.addWorkload({
      namespace: spec.namespace,
      service: spec.service,
      app: spec.app,
      identity: member.identity,
      snapshot: member.snapshot,
      access: (namespace, service) => member.agent.access({ namespace, service }),
    });
    const out = this.#outboundOf(spec);
    const what = `the outbound port of ${member.name}`;
    bindExactly(what, out.host, out.port, "--port-base", () =>
      this.#proxy.listenOutbound(local, out.host, out.port),
    );
    const upstream: Record<string, string> = {};
    for (const { namespace, service, servicePort, listenPort } of spec.upstream) {
      const to = {
        namespace: namespace ?? spec.namespace,
        service,
        ...(servicePort === undefined ? {} : { servicePort }),
      };
      bindExactly(`the port for ${service}`, out.host, listenPort, "--upstream", () =>
        this.#proxy.listenUpstream(local, to, out.host, listenPort),
      );
      upstream[`${to.namespace}/${service}`] = `${out.host}:${listenPort}`;
    }
    const outbound = `${out.host}:${out.port}`;
    return { namespace: spec.namespace, service: spec.service, outbound, upstream };
  }

  #outboundOf(spec: WorkloadSpec): { readonly host: string; readonly port: number } {
    return spec.out ?? { host: "127.0.0.1", port: this.#options.portBase + OUTBOUND };
  }

  #facts(): AdminFacts {
    return {
      metrics: () => this.#metrics.render(),
      checks: () => [
        ...this.#members.flatMap((member) => member.checks()),
        {
          name: "process",
          ok: !this.#draining,
          detail: this.#draining ? "draining" : "running",
        },
      ],
    };
  }

  /** Address of the metrics port as others on this host reach it. */
  #openAdmin(): string {
    const { metricsBind, portBase } = this.#options;
    const app = createAdmin(this.#facts());
    const admission = new Admission(METRICS_CALLERS_MAX);
    const refused = countRefused(this.#metrics, admission);
    const accept = (c: Connection) => serveApp(c, app, { refused });
    this.#admin = bindNext("the metrics port", metricsBind, portBase + ADMIN, (port) =>
      listen({ host: metricsBind, port, admission, accept }),
    );
    this.#ownPorts.add(this.#admin.port);
    const anywhere = metricsBind === "0.0.0.0" || metricsBind === "::";
    return `${anywhere ? "127.0.0.1" : metricsBind}:${this.#admin.port}`;
  }

  #openSocket(): void {
    const unix = join(this.#options.data, "admin.sock");
    const app = createAdminSocket(this.#facts(), {
      configDump: () => ({ workloads: this.#members.map((member) => member.dump()) }),
      drain: this.#drainNow,
      logLevel: () => this.#sink.level,
      setLogLevel: (level) => {
        this.#sink.level = level;
      },
    });
    try {
      rmSync(unix, { force: true });
      const mask = process.umask(0o177);
      try {
        this.#socket = Bun.serve({ unix, fetch: (request) => app.fetch(request) });
      } finally {
        process.umask(mask);
      }
    } catch (error) {
      // A path of more than 107 bytes cannot be a socket: everything else works without it.
      this.#log.warn("no admin socket", { path: unix, error });
    }
  }

  #tell({ mesh, metrics, workloads }: Ways): void {
    const { portBase } = this.#options;
    for (const { namespace, service, outbound, upstream } of workloads) {
      const ports = Object.keys(upstream).length === 0 ? {} : { upstream };
      this.#log.info(`${namespace}/${service} reaches the mesh by http://${outbound}`, ports);
    }
    const moved = mesh !== portBase + MESH || !metrics.endsWith(`:${portBase + ADMIN}`);
    this.#log.info(moved ? "listening, some ports moved" : "listening", { mesh, metrics });
  }
}
