/** `weft up`: a whole mesh from one file, and nothing left of it after Ctrl-C. */
import { afterAll, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Running, run, spawn, takePorts, until, WEFT } from "../harness/mesh.ts";

const folder = mkdtempSync(join(tmpdir(), "weft-up-"));
const started: Running[] = [];

afterAll(async () => {
  // Killed outright it would leave behind what it started.
  for (const child of started) child.kill("SIGTERM");
  await Promise.all(started.map(({ exited }) => exited));
  rmSync(folder, { recursive: true, force: true });
});

const program = (name: string, command: readonly string[], more = "") => `
apiVersion: weft.dev/v1
kind: Process
metadata: { name: ${name} }
spec:
  service: ${name}
  command: ${JSON.stringify(command)}
${more}`;

const serve = [
  process.execPath,
  "-e",
  "Bun.serve({hostname: '127.0.0.1', port: process.env.PORT, fetch: () => new Response('hi')})",
];

/** Offsets: control plane up to 222, proxies from 300 on in steps of 100, the programs' ports. */
const PORTS = 600;
const APP = 240;
const LOCAL = 241;

interface Up extends Running {
  readonly data: string;
  readonly base: number;
}

function start(name: string, documents: (base: number) => string): Up {
  const base = takePorts(PORTS);
  const file = join(folder, `${name}.yaml`);
  const data = join(folder, name);
  writeFileSync(file, documents(base));
  const child = spawn([WEFT, "up", file, `--data=${data}`, `--port-base=${base}`]);
  started.push(child);
  return { ...child, data, base };
}

async function up(name: string, documents: (base: number) => string): Promise<Up> {
  const mesh = start(name, documents);
  await until("weft up says what runs", () => existsSync(join(mesh.data, "up.json")), 20_000).catch(
    (error) => {
      throw new Error(`${error}\n${mesh.log()}\n${mesh.output()}`);
    },
  );
  return mesh;
}

/** Processes whose environment has this text. */
function marked(text: string): string[] {
  return readdirSync("/proc").filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/environ`, "utf8").includes(text);
    } catch {
      return false;
    }
  });
}

/** Every process that `up` started, and the NATS server of its control plane. */
async function processesOf({ data }: Up): Promise<number[]> {
  const { children } = JSON.parse(readFileSync(join(data, "children.json"), "utf8"));
  const nats = await run(["pgrep", "-f", `nats-server.*${data}`]);
  const pids = (children as { pid: number }[]).map(({ pid }) => pid);
  return [...pids, ...nats.stdout.trim().split("\n").map(Number)];
}

function living(pids: readonly number[]): number[] {
  return pids.filter((pid) => existsSync(`/proc/${pid}`));
}

test("one Ctrl-C stops every program, proxy and the control plane, and exits 0", async () => {
  const mesh = await up("calm", (base) =>
    [
      program("cart", serve, `  app: ["80=${base + APP}/http"]`),
      program("shopper", ["sleep", "1000"], `  upstreams: ["cart:${base + LOCAL}"]`),
    ].join("\n---"),
  );
  const local = `127.0.0.1:${mesh.base + LOCAL}`;
  expect(await (await fetch(`http://${local}/`)).text()).toBe("hi");
  expect(mesh.log()).toContain(`cart ${local}`);
  expect(mesh.output()).not.toContain("{}");
  const pids = await processesOf(mesh);
  // Two programs, two proxies, the control plane, its NATS server.
  expect(living(pids)).toHaveLength(6);
  process.kill(mesh.pid, "SIGINT");
  expect(await mesh.exited).toBe(0);
  expect(living(pids)).toEqual([]);
  expect(existsSync(join(mesh.data, "children.json"))).toBe(false);
}, 40_000);

test("Ctrl-C while it starts leaves nothing either", async () => {
  const mark = `MARK=${folder}`;
  for (const sign of ["configuration applied", "first is here"]) {
    const name = sign.replaceAll(" ", "-");
    const command = ["sh", "-c", "echo first is here; exec sleep 1000"];
    const env = `  env: { MARK: "${folder}" }`;
    const names = ["a", "b", "c", "d"];
    const mesh = start(name, () => names.map((each) => program(each, command, env)).join("\n---"));
    await until(sign, () => (mesh.log() + mesh.output()).includes(sign), 20_000);
    process.kill(mesh.pid, "SIGINT");
    expect([sign, await mesh.exited]).toEqual([sign, 0]);
    expect(marked(mark)).toEqual([]);
    expect((await run(["pgrep", "-f", mesh.data])).stdout).toBe("");
  }
}, 60_000);

test("a second Ctrl-C kills what does not stop, and leaves nothing either", async () => {
  const stubborn = ["sh", "-c", "trap '' INT TERM; while :; do sleep 0.1; done"];
  const mesh = await up("stubborn", () => program("rock", stubborn));
  const pids = await processesOf(mesh);
  process.kill(mesh.pid, "SIGINT");
  await until("it stops", () => mesh.log().includes("stopping"));
  process.kill(mesh.pid, "SIGINT");
  expect(await mesh.exited).toBe(0);
  await until("all are gone", () => living(pids).length === 0);
}, 40_000);
