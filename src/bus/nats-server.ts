/**
 * nats-server as a supervised child.
 *
 * It runs in its own session with its own log file, so it outlives a control plane that is killed:
 * proxies keep their link. The next control plane adopts it when executable and configuration are
 * the same, and replaces it otherwise. It is restarted when it ends, after 100 ms to 5 s.
 */
import { createHash } from "node:crypto";
import {
  chmodSync,
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { connect, createServer } from "node:net";
import { join, resolve } from "node:path";
import { Failure } from "../error.ts";
import { findRunning, isRunning } from "./nats-process.ts";
import { isAtLeast, NATS_FLOOR, NATS_SHA256, NATS_VERSION } from "./nats-release.ts";

/** Who the server lets in: JWTs and public keys, no secrets. */
export interface NatsTrustConfig {
  readonly operatorJwt: string;
  readonly systemAccount: string;
  readonly systemJwt: string;
  readonly account: string;
  readonly accountJwt: string;
}

export interface NatsServerOptions {
  /** Control plane's data folder; the server lives in `<dataDir>/nats`. */
  readonly dataDir: string;
  /** Path of the executable, from `findNatsServer`. */
  readonly binary: string;
  readonly host: string;
  readonly port: number;
  /** Required beyond loopback. PEM texts. */
  readonly tls?: { readonly cert: string; readonly key: string };
  readonly auth: NatsTrustConfig;
  /** Hears of every unexpected end and of every restart. */
  readonly log?: (event: NatsServerEvent) => void;
}

export interface NatsServerEvent {
  readonly event: "nats_started" | "nats_adopted" | "nats_replaced" | "nats_ended";
  readonly pid: number;
  readonly detail: string;
}

const START_DEADLINE_MS = 10_000;
const STOP_DEADLINE_MS = 5_000;
const BACKOFF_FIRST_MS = 100;
const BACKOFF_LAST_MS = 5_000;
/** A run this long was healthy: the next restart is quick again. */
const HEALTHY_MS = 10_000;
const ADOPTED_POLL_MS = 100;

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\./.test(host);
}

function quote(text: string): string {
  return JSON.stringify(text);
}

/** The configuration file; a pure function of the options. */
export function natsConfig(o: NatsServerOptions): string {
  const folder = join(resolve(o.dataDir), "nats");
  const { auth } = o;
  const lines = [
    `server_name: ${quote("weft")}`,
    `host: ${quote(o.host)}`,
    `port: ${o.port}`,
    `log_file: ${quote(join(folder, "nats.log"))}`,
    "logfile_size_limit: 4MB",
    "logfile_max_num: 2",
    "max_payload: 1MB",
    // A user JWT grants key by key and travels in one line.
    "max_control_line: 256KB",
    'ping_interval: "10s"',
    "ping_max: 2",
    'write_deadline: "10s"',
    "jetstream {",
    `  store_dir: ${quote(join(folder, "store"))}`,
    "  sync_interval: always",
    "  max_memory_store: 0",
    "}",
    `operator: ${auth.operatorJwt}`,
    `system_account: ${auth.systemAccount}`,
    "resolver: MEMORY",
    "resolver_preload: {",
    `  ${auth.systemAccount}: ${auth.systemJwt}`,
    `  ${auth.account}: ${auth.accountJwt}`,
    "}",
  ];
  if (o.tls !== undefined) {
    lines.push("tls {", `  cert_file: ${quote(join(folder, "tls.pem"))}`);
    lines.push(`  key_file: ${quote(join(folder, "tls.key"))}`);
    lines.push('  min_version: "1.3"', "  timeout: 5", "}");
  }
  return `${lines.join("\n")}\n`;
}

/** Whether a NATS server greets on host and port within `timeoutMs`. */
function greets(host: string, port: number, timeoutMs: number): Promise<boolean> {
  return new Promise((done) => {
    const socket = connect({ host, port });
    const finish = (answer: boolean) => {
      clearTimeout(timer);
      socket.destroy();
      done(answer);
    };
    const timer = setTimeout(() => finish(false), timeoutMs);
    socket.on("data", (bytes) => finish(bytes.toString("latin1").startsWith("INFO ")));
    socket.on("error", () => finish(false));
    socket.on("close", () => finish(false));
  });
}

/** Whether the port can be bound now. */
function isFree(host: string, port: number): Promise<boolean> {
  return new Promise((done) => {
    const probe = createServer();
    probe.on("error", () => done(false));
    probe.listen({ host, port, exclusive: true }, () => probe.close(() => done(true)));
  });
}

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

const delay = (ms: number) => new Promise<void>((done) => setTimeout(done, ms));

/** A running nats-server that comes back when it ends. */
export class NatsServer {
  readonly #options: NatsServerOptions;
  readonly #folder: string;
  readonly #config: string;
  #pid = 0;
  #stopped = false;
  #restarts = 0;
  #backoffMs = BACKOFF_FIRST_MS;
  #watching: Promise<void> = Promise.resolve();

  constructor(options: NatsServerOptions) {
    this.#options = options;
    this.#folder = join(resolve(options.dataDir), "nats");
    this.#config = join(this.#folder, "nats.conf");
  }

  /** `nats://host:port` or, with TLS, `tls://host:port`. */
  get url(): string {
    const { host, port, tls } = this.#options;
    const name = host.includes(":") ? `[${host}]` : host;
    return `${tls === undefined ? "nats" : "tls"}://${name}:${port}`;
  }

  get pid(): number {
    return this.#pid;
  }

  /** Restarts after an unexpected end. */
  get restarts(): number {
    return this.#restarts;
  }

  /** Runs it, or takes over one that is running; throws a `Failure` when it does not come up. */
  async start(): Promise<void> {
    const { host, tls } = this.#options;
    if (tls === undefined && !isLoopback(host)) {
      throw new Failure(
        "nats_needs_tls",
        `NATS would listen on ${host} without TLS`,
        "bind to 127.0.0.1, or give the server a certificate",
      );
    }
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
    chmodSync(this.#folder, 0o700);
    const running = findRunning(this.#config);
    const before = this.#writeFiles();
    const [first] = running;
    if (running.length === 1 && first !== undefined && before && (await this.#adopt(first))) return;
    for (const found of running) {
      await this.#end(found.pid);
      this.#say("nats_replaced", found.pid, "left by an earlier control plane");
    }
    await this.#launch();
  }

  /** New certificate; open connections keep the old one. */
  renewTls(tls: { readonly cert: string; readonly key: string }): void {
    this.#writeTls(tls);
    if (this.#pid !== 0) process.kill(this.#pid, "SIGHUP");
  }

  /** Ends the server and stays down. */
  async stop(): Promise<void> {
    this.#stopped = true;
    const pid = this.#pid;
    if (pid !== 0) await this.#end(pid);
    await this.#watching;
  }

  #say(event: NatsServerEvent["event"], pid: number, detail: string): void {
    this.#options.log?.({ event, pid, detail });
  }

  #writeTls(tls: { readonly cert: string; readonly key: string }): void {
    for (const [name, text] of [
      ["tls.pem", tls.cert],
      ["tls.key", tls.key],
    ] as const) {
      const path = join(this.#folder, name);
      writeFileSync(`${path}.new`, text, { mode: 0o600 });
      renameSync(`${path}.new`, path);
    }
  }

  /** True when the configuration on disk was already the same. */
  #writeFiles(): boolean {
    if (this.#options.tls !== undefined) this.#writeTls(this.#options.tls);
    const text = natsConfig(this.#options);
    let before = "";
    try {
      before = readFileSync(this.#config, "utf8");
    } catch {
      // The first start: there is none.
    }
    if (before === text) return true;
    writeFileSync(`${this.#config}.new`, text, { mode: 0o600 });
    renameSync(`${this.#config}.new`, this.#config);
    return false;
  }

  async #adopt(found: { readonly pid: number; readonly executable: string }): Promise<boolean> {
    const { host, port, binary, tls } = this.#options;
    if (found.executable !== resolve(binary) || !(await greets(host, port, 2_000))) return false;
    this.#pid = found.pid;
    if (tls !== undefined) process.kill(found.pid, "SIGHUP");
    this.#say("nats_adopted", found.pid, "kept running since an earlier control plane");
    this.#watching = this.#watch(this.#gone(found.pid));
    return true;
  }

  /** Resolves when a process that is not our child has ended. */
  async #gone(pid: number): Promise<string> {
    while (isRunning(pid, this.#config)) await delay(ADOPTED_POLL_MS);
    return "ended";
  }

  #spawn(): Bun.Subprocess {
    const { binary } = this.#options;
    // Complaints about the configuration come before the log file is open. A file, not a pipe:
    // a pipe to a dead control plane would kill the server.
    const complaints = openSync(join(this.#folder, "nats.stderr"), "w", 0o600);
    try {
      const child = Bun.spawn([resolve(binary), "-c", this.#config], {
        stdio: ["ignore", "ignore", complaints],
        env: { PATH: process.env["PATH"] ?? "/usr/bin:/bin" },
        cwd: this.#folder,
        detached: true,
      });
      child.unref();
      return child;
    } catch (cause) {
      throw new Failure(
        "nats_not_executable",
        `cannot run ${binary}: ${cause instanceof Error ? cause.message : String(cause)}`,
        "give another one with --nats-server PATH, or use an external NATS with --nats-url",
        { cause },
      );
    } finally {
      closeSync(complaints);
    }
  }

  async #launch(): Promise<void> {
    const { host, port } = this.#options;
    if (!(await isFree(host, port))) {
      throw new Failure(
        "port_in_use",
        `NATS cannot listen on ${host}:${port}: the port is in use`,
        "stop the other program, or shift weft's ports with --port-base",
      );
    }
    const logged = sizeOf(join(this.#folder, "nats.log"));
    const child = this.#spawn();
    this.#pid = child.pid;
    let exit = "";
    const exited = child.exited.then((code) => {
      exit = child.signalCode === null ? `exit code ${code}` : String(child.signalCode);
      return exit;
    });
    const deadline = performance.now() + START_DEADLINE_MS;
    while (exit === "" && !(await greets(host, port, 1_000))) {
      if (performance.now() > deadline) {
        await this.#end(child.pid);
        exit ||= `no greeting within ${START_DEADLINE_MS} ms`;
      }
      await delay(20);
    }
    if (exit !== "") {
      throw new Failure(
        "nats_failed",
        `nats-server did not start (${exit}): ${this.#complaint(logged)}`,
        `see ${join(this.#folder, "nats.log")}`,
      );
    }
    this.#say("nats_started", child.pid, this.url);
    this.#watching = this.#watch(exited);
  }

  /** What the server said last before it ended; `logged` is where this run's log begins. */
  #complaint(logged: number): string {
    for (const [name, from] of [
      ["nats.stderr", 0],
      ["nats.log", logged],
    ] as const) {
      try {
        const bytes = readFileSync(join(this.#folder, name)).subarray(from);
        const lines = bytes.toString("utf8").trimEnd().split("\n");
        const line = lines.findLast((each) => /\[(FTL|ERR)\]/.test(each)) ?? lines.at(-1) ?? "";
        if (line !== "") return line;
      } catch {
        // It did not get as far as its log.
      }
    }
    return "it left no log";
  }

  async #watch(ended: Promise<string>): Promise<void> {
    let started = performance.now();
    let exit = await ended;
    for (;;) {
      const pid = this.#pid;
      this.#pid = 0;
      if (this.#stopped) return;
      this.#say("nats_ended", pid, exit);
      if (performance.now() - started > HEALTHY_MS) this.#backoffMs = BACKOFF_FIRST_MS;
      await delay(this.#backoffMs);
      this.#backoffMs = Math.min(this.#backoffMs * 2, BACKOFF_LAST_MS);
      if (this.#stopped) return;
      this.#restarts++;
      started = performance.now();
      try {
        await this.#launch();
        return;
      } catch (error) {
        exit = error instanceof Error ? error.message : String(error);
      }
    }
  }

  async #end(pid: number): Promise<void> {
    const deadline = performance.now() + STOP_DEADLINE_MS;
    let signal: NodeJS.Signals = "SIGTERM";
    while (isRunning(pid, this.#config)) {
      try {
        process.kill(pid, signal);
      } catch {
        return;
      }
      // A server that is starting may miss the first signal, so each round sends it again.
      for (let turn = 0; turn < 20 && isRunning(pid, this.#config); turn++) await delay(10);
      if (performance.now() > deadline) signal = "SIGKILL";
    }
  }
}

/** Starts, or adopts, the nats-server of this data folder. */
export async function startNatsServer(options: NatsServerOptions): Promise<NatsServer> {
  const server = new NatsServer(options);
  await server.start();
  return server;
}

export interface NatsServerSource {
  /** `--nats-server PATH`. */
  readonly path?: string;
  /** The carried executable as a readable file. */
  readonly embedded?: string;
  readonly dataDir: string;
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Copies the carried executable where it can be run; a damaged copy is replaced. */
function copyOut(embedded: string, dataDir: string): string {
  const folder = join(resolve(dataDir), "nats");
  const target = join(folder, `nats-server-${NATS_VERSION}`);
  try {
    if (sha256(readFileSync(target)) === NATS_SHA256) return target;
  } catch {
    // Not copied yet.
  }
  const bytes = readFileSync(embedded);
  if (sha256(bytes) !== NATS_SHA256) {
    throw new Failure(
      "nats_damaged",
      "the nats-server inside this executable is damaged",
      "install weft again, or give a nats-server with --nats-server PATH",
    );
  }
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  // A running copy cannot be written to, but can be replaced.
  writeFileSync(`${target}.new`, bytes, { mode: 0o755 });
  renameSync(`${target}.new`, target);
  rmSync(`${target}.new`, { force: true });
  return target;
}

/**
 * The executable to run: the given one, else the carried one copied to the data folder. Throws a
 * `Failure` when there is none, or when the given one is too old to be safe.
 */
export function findNatsServer(source: NatsServerSource): string {
  if (source.path === undefined) {
    if (source.embedded !== undefined) return copyOut(source.embedded, source.dataDir);
    throw new Failure(
      "nats_missing",
      "this build of weft carries no nats-server",
      "give one with --nats-server PATH, or use an external NATS with --nats-url",
    );
  }
  let version: string | undefined;
  try {
    const result = Bun.spawnSync([source.path, "--version"], { env: {}, timeout: 5_000 });
    version = /v(\d+\.\d+\.\d+\S*)/.exec(result.stdout.toString())?.[1];
  } catch {
    // Reported below with the same words as any other program.
  }
  if (version === undefined) {
    throw new Failure(
      "nats_invalid",
      `${source.path} is not a nats-server that runs here`,
      "check the path given with --nats-server",
    );
  }
  if (!isAtLeast(version, NATS_FLOOR)) {
    throw new Failure(
      "nats_too_old",
      `${source.path} is nats-server ${version}; versions before ${NATS_FLOOR} are unsafe`,
      `use ${NATS_FLOOR} or newer, or leave --nats-server out`,
    );
  }
  return resolve(source.path);
}
