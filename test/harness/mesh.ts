/**
 * A real mesh for tests: `dist/weft` as separate processes, on ports and folders of its own.
 * Tests read as a story; everything started here is stopped by `stop()`.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const WEFT = process.env["WEFT"] ?? join(import.meta.dir, "../../dist/weft");

/** Ports per process: a proxy uses base+1 … base+53, a control plane up to base+222. */
const PORTS_PER_PROXY = 60;
const PORTS_PER_CONTROLPLANE = 240;

export interface Result {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Running {
  readonly pid: number;
  readonly args: readonly string[];
  readonly exited: Promise<number>;
  /** Everything the process has said on stderr so far. */
  log(): string;
  /** The same of stdout, where proxies write their access log. */
  output(): string;
  kill(signal: "SIGTERM" | "SIGKILL" | "SIGSTOP" | "SIGCONT"): void;
}

export interface Sidecar extends Running {
  readonly data: string;
  /** Where the application dials the mesh: `http://127.0.0.1:port`. */
  readonly outbound: string;
  readonly outboundPort: number;
  readonly meshPort: number;
  readonly admin: string;
}

export interface SidecarOptions {
  readonly service: string;
  readonly app?: readonly string[];
  readonly upstream?: readonly string[];
  readonly args?: readonly string[];
  /** Start without waiting for readiness. */
  readonly noWait?: boolean;
}

export async function until<T>(
  what: string,
  attempt: () => Promise<T | undefined | false> | T | undefined | false,
  timeoutMs = 10_000,
): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  let last: unknown;
  while (performance.now() < deadline) {
    try {
      const value = await attempt();
      if (value !== undefined && value !== false) return value;
    } catch (error) {
      last = error;
    }
    await Bun.sleep(20);
  }
  const cause = last === undefined ? "" : `: ${last}`;
  throw new Error(`not within ${timeoutMs} ms: ${what}${cause}`);
}

export function spawn(command: readonly string[], env: Record<string, string> = {}): Running {
  const folder = mkdtempSync(join(tmpdir(), "weft-log-"));
  const file = join(folder, "stderr");
  const out = join(folder, "stdout");
  writeFileSync(file, "");
  writeFileSync(out, "");
  const child = Bun.spawn([...command], {
    stdin: "ignore",
    stdout: Bun.file(out),
    stderr: Bun.file(file),
    env: { ...process.env, ...env },
  });
  return {
    pid: child.pid,
    args: command.slice(1),
    exited: child.exited.then(() => child.exitCode ?? 128),
    log: () => readFileSync(file, "utf8"),
    output: () => readFileSync(out, "utf8"),
    kill: (signal) => child.kill(signal),
  };
}

/** Runs a command to its end. */
export async function run(
  command: readonly string[],
  options: { readonly env?: Record<string, string>; readonly stdin?: string } = {},
): Promise<Result> {
  const child = Bun.spawn([...command], {
    stdin: options.stdin === undefined ? "ignore" : new Blob([options.stdin]),
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env, ...options.env },
  });
  const [stdout, stderr, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { code, stdout, stderr };
}

let nextBase = 20_000 + Math.floor(Math.random() * 40) * 240;

function isFree(port: number): boolean {
  try {
    Bun.listen({ hostname: "0.0.0.0", port, socket: { data() {} } }).stop(true);
    return true;
  } catch {
    return false;
  }
}

/** A range of ports that nothing uses now, below the range from which the kernel hands out ports. */
export function takePorts(count: number): number {
  for (;;) {
    if (nextBase + count > 32_000) nextBase = 20_000;
    const base = nextBase;
    nextBase += count;
    if (USED.every((offset) => offset >= count || isFree(base + offset))) return base;
  }
}

/** Offsets from the port base at which weft listens; 0 for a single port. */
const USED = [0, 1, 6, 10, 20, 222];

/** Processes of NATS whose configuration is in `folder`. */
export function natsServersOf(folder: string): readonly number[] {
  const found = Bun.spawnSync(["pgrep", "-f", `nats-server.*${folder}/`]).stdout.toString();
  return found
    .split("\n")
    .filter((line) => line !== "")
    .map(Number);
}

export class TestMesh {
  readonly folder = mkdtempSync(join(tmpdir(), "weft-test-"));
  readonly base = takePorts(PORTS_PER_CONTROLPLANE);
  readonly data = join(this.folder, "controlplane");
  readonly api = `https://127.0.0.1:${this.base + 10}`;
  readonly #args: readonly string[];
  readonly #children = new Set<Running>();
  #controlplane: Running | undefined;

  private constructor(args: readonly string[]) {
    this.#args = args;
  }

  /** A control plane, ready to serve; `prepare` runs before it starts. */
  static async start(
    args: readonly string[] = [],
    prepare?: (mesh: TestMesh) => Promise<void>,
  ): Promise<TestMesh> {
    const mesh = new TestMesh(args);
    await prepare?.(mesh);
    await mesh.startControlplane();
    return mesh;
  }

  get controlplane(): Running {
    if (this.#controlplane === undefined) throw new Error("the control plane is not running");
    return this.#controlplane;
  }

  async startControlplane(): Promise<Running> {
    const process = this.spawn([
      WEFT,
      "--mode=controlplane",
      `--data=${this.data}`,
      `--port-base=${this.base}`,
      ...this.#args,
    ]);
    this.#controlplane = process;
    await until(
      "the control plane is ready",
      async () => {
        const answer = await fetch(`${this.api}/readyz`, { tls: { rejectUnauthorized: false } });
        return answer.ok;
      },
      15_000,
    ).catch((error) => {
      throw new Error(`${error}\n${process.log()}`);
    });
    return process;
  }

  async killControlplane(): Promise<void> {
    this.controlplane.kill("SIGKILL");
    await this.controlplane.exited;
    this.#controlplane = undefined;
  }

  natsPid(): number {
    return natsServersOf(this.data)[0] ?? 0;
  }

  spawn(command: readonly string[], env: Record<string, string> = {}): Running {
    const child = spawn(command, env);
    this.#children.add(child);
    return child;
  }

  /** Runs a command of the command line against this mesh. */
  weft(...args: readonly string[]): Promise<Result> {
    return run([WEFT, ...args, `--controlplane=${this.api}`], {
      env: {
        WEFT_TOKEN_FILE: join(this.data, "admin.token"),
        WEFT_DATA: this.data,
        NO_COLOR: "1",
      },
    });
  }

  /** Applies documents and fails the test unless they are accepted. */
  async apply(yaml: string, ...args: readonly string[]): Promise<Result> {
    const file = join(this.folder, `apply-${performance.now()}.yaml`);
    writeFileSync(file, yaml);
    const result = await this.weft("apply", "-f", file, ...args);
    if (result.code !== 0) throw new Error(`apply: exit ${result.code}\n${result.stderr}`);
    return result;
  }

  /** A join token, as a file. */
  async token(...args: readonly string[]): Promise<string> {
    const result = await this.weft("token", "create", ...args);
    if (result.code !== 0) throw new Error(`token create: ${result.stderr}`);
    const file = join(this.folder, `token-${performance.now()}`);
    writeFileSync(file, result.stdout.trim(), { mode: 0o600 });
    return file;
  }

  async sidecar(options: SidecarOptions): Promise<Sidecar> {
    const base = takePorts(PORTS_PER_PROXY);
    const data = join(this.folder, `sidecar-${options.service}-${base}`);
    const token = await this.token();
    const command = [
      WEFT,
      "--mode=sidecar",
      `--service=${options.service}`,
      ...(options.app ?? []).map((app) => `--app=${app}`),
      ...(options.upstream ?? []).map((upstream) => `--upstream=${upstream}`),
      `--controlplane=${this.api}`,
      `--token-file=${token}`,
      `--data=${data}`,
      `--port-base=${base}`,
      ...(options.args ?? []),
    ];
    return this.proxy(command, data, base, options.noWait === true);
  }

  /** Starts a proxy process and waits until it says that it is ready. */
  async proxy(
    command: readonly string[],
    data: string,
    base: number,
    noWait = false,
  ): Promise<Sidecar> {
    const process = this.spawn(command);
    const sidecar: Sidecar = {
      ...process,
      data,
      outbound: `http://127.0.0.1:${base + 1}`,
      outboundPort: base + 1,
      meshPort: base + 6,
      admin: `http://127.0.0.1:${base + 20}`,
    };
    if (!noWait) await this.ready(sidecar);
    return sidecar;
  }

  async ready(sidecar: Sidecar): Promise<void> {
    await until(
      `${sidecar.args.join(" ")} is ready`,
      async () => (await fetch(`${sidecar.admin}/readyz`)).ok,
      15_000,
    ).catch((error) => {
      throw new Error(`${error}\n${sidecar.log()}`);
    });
  }

  async stop(): Promise<void> {
    for (const child of this.#children) child.kill("SIGKILL");
    await Promise.all([...this.#children].map((child) => child.exited));
    // Also those of further control planes of a test that failed: they outlive whoever is killed.
    for (const pid of natsServersOf(this.folder)) process.kill(pid, "SIGKILL");
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** GET through a proxy's outbound port, naming the service by Host. */
export async function ask(
  outbound: string,
  service: string,
  path = "/",
  init: RequestInit = {},
): Promise<Response> {
  const headers = new Headers(init.headers);
  headers.set("host", service);
  return fetch(`${outbound}${path}`, { ...init, headers });
}

/** Sums the samples of a metric whose labels contain all of `labels`. */
export function sumMetric(
  text: string,
  name: string,
  labels: Readonly<Record<string, string>> = {},
): number {
  let sum = 0;
  for (const line of text.split("\n")) {
    if (!line.startsWith(`${name}{`) && !line.startsWith(`${name} `)) continue;
    const wanted = Object.entries(labels).every(([key, value]) =>
      line.includes(`${key}="${value}"`),
    );
    if (wanted) sum += Number(line.slice(line.lastIndexOf(" ") + 1));
  }
  return sum;
}

export async function metrics(sidecar: Sidecar): Promise<string> {
  return (await fetch(`${sidecar.admin}/metrics`)).text();
}
