/**
 * nats-server as a supervised child.
 *
 * It runs in its own session with its own log file, so it outlives a control plane that is killed:
 * proxies keep their link. The next control plane adopts it when executable and configuration are
 * the same, and replaces it otherwise. It is restarted when it ends, after 100 ms to 5 s.
 */
import {
  closeSync,
  existsSync,
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
import {
  isLoopback,
  type NatsServerEventName,
  type NatsServerOptions,
  natsConfig,
} from "./nats-config.ts";
import { makeNatsFolder } from "./nats-folder.ts";
import { findRunning, isRunning } from "./nats-process.ts";

/** Reading back what proxies need takes milliseconds; longer means a damaged store. */
const START_DEADLINE_MS = 5_000;
const STOP_DEADLINE_MS = 2_000;
const BACKOFF_FIRST_MS = 100;
const BACKOFF_LAST_MS = 5_000;
/** A run this long was healthy: the next restart is quick again. */
const HEALTHY_MS = 10_000;
const ADOPTED_POLL_MS = 100;

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
  #wipeNext = false;
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
    makeNatsFolder(this.#folder);
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

  /** Whether the server greets a new connection. */
  answers(): Promise<boolean> {
    const { host, port } = this.#options;
    return greets(host, port, 1_000);
  }

  /**
   * Ends the server, so that its supervisor starts it again. With `wipe` its store goes: the
   * control plane then publishes everything anew.
   */
  async restart(why: string, wipe = false): Promise<void> {
    const pid = this.#pid;
    if (pid === 0 || this.#stopped) return;
    this.#say("nats_restart", pid, why);
    this.#wipeNext = wipe;
    await this.#end(pid);
  }

  /** Ends the server and stays down. */
  async stop(): Promise<void> {
    this.#stopped = true;
    // A restart may be under way: what it brought up must go as well.
    do {
      if (this.#pid !== 0) await this.#end(this.#pid);
      await this.#watching;
    } while (this.#pid !== 0);
  }

  #say(event: NatsServerEventName, pid: number, detail: string): void {
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
        env: { PATH: "/usr/bin:/bin" },
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

  /** Starts it; a store that keeps it from starting is dropped, for it is only a copy. */
  async #launch(): Promise<void> {
    try {
      await this.#launchOnce();
    } catch (error) {
      const hasStore = existsSync(join(this.#folder, "store"));
      if (!(error instanceof Failure) || error.code !== "nats_failed" || !hasStore) throw error;
      this.#wipe(error.message);
      await this.#launchOnce();
    }
  }

  #wipe(why: string): void {
    rmSync(join(this.#folder, "store"), { recursive: true, force: true });
    this.#say("nats_wiped", 0, why);
  }

  async #launchOnce(): Promise<void> {
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
        child.kill("SIGKILL");
        await exited;
        exit = `no greeting within ${START_DEADLINE_MS} ms`;
      }
      await delay(20);
    }
    if (exit !== "") {
      this.#pid = 0;
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
      if (this.#wipeNext) this.#wipe("asked for");
      this.#wipeNext = false;
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
