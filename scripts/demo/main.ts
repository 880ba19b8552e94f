/**
 * The demo: starts the example mesh, shows its edges live and tells a story (canary, control plane
 * killed, rollback) while it checks every claim. Then it ends with `--exit`, or leaves the mesh to
 * whoever is watching.
 */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { amountOf, difference, type Edge, edgesOf, parse } from "./metrics.ts";
import { render, Screen } from "./table.ts";

const WEFT = join(import.meta.dir, "../../dist/weft");
const FILE = join(import.meta.dir, "mesh.yaml");
const PORT_BASE = 26_100;
const STATS = "http://127.0.0.1:26099/stats";
const exitAfter = process.argv.includes("--exit");

interface Stats {
  readonly sent: number;
  readonly ok: number;
  readonly failed: number;
  readonly errors: readonly string[];
}

/** Always the same folder: `weft up` finds there what a killed demo left running, and stops it. */
const folder = join(tmpdir(), `weft-demo-${process.getuid?.() ?? 0}`);
mkdirSync(folder, { recursive: true, mode: 0o700 });
/** Written by `weft up` once everything runs. */
const ready = join(folder, "up.json");
rmSync(ready, { force: true });
const screen = new Screen();
const problems: string[] = [];
let stopping = false;
const log = join(folder, "up.log");
const up = Bun.spawn([WEFT, "up", FILE, `--data=${folder}`, `--port-base=${PORT_BASE}`], {
  cwd: import.meta.dir,
  stdin: "ignore",
  stdout: Bun.file(log),
  stderr: Bun.file(`${log}.err`),
  // Ctrl-C reaches the demo alone: a second signal would make `weft up` kill instead of stop.
  detached: true,
});

function check(claim: string, holds: boolean): void {
  screen.say(`${holds ? "  ✓" : "  ✗"} ${claim}`);
  if (!holds) problems.push(claim);
}

async function weft(...args: readonly string[]): Promise<string> {
  const child = Bun.spawn([WEFT, ...args, `--data=${join(folder, "controlplane")}`], {
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env, NO_COLOR: "1" },
  });
  const [out, err] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  if ((await child.exited) !== 0) throw new Error(`weft ${args.join(" ")}: ${err}`);
  return out;
}

async function until<T>(what: string, get: () => Promise<T | undefined>, ms: number): Promise<T> {
  const deadline = performance.now() + ms;
  let last: unknown = "";
  while (performance.now() < deadline && up.exitCode === null) {
    try {
      const value = await get();
      if (value !== undefined) return value;
    } catch (error) {
      last = error;
    }
    await Bun.sleep(50);
  }
  throw new Error(`${what}: not within ${ms} ms (${last})`);
}

const stats = async () => (await (await fetch(STATS)).json()) as Stats;

/** Where each proxy tells its metrics; kept while the control plane is away. */
let targets: readonly string[] = [];

async function findTargets(): Promise<void> {
  const lines = [...new Bun.Glob("**/run.json").scanSync(folder)];
  targets = lines
    .map((path) => JSON.parse(readFileSync(join(folder, path), "utf8")) as { metrics?: string })
    .map(({ metrics }) => metrics)
    .filter((address) => address !== undefined);
}

async function edges(): Promise<Map<string, Edge>> {
  const texts = await Promise.all(
    targets.map((target) =>
      fetch(`http://${target}/metrics`).then(
        (answer) => answer.text(),
        () => "",
      ),
    ),
  );
  return edgesOf(texts.flatMap(parse));
}

/** Redraws the table each second for a while. */
async function watch(seconds: number): Promise<void> {
  let before = await edges();
  for (let second = 0; second < seconds; second++) {
    const started = performance.now();
    await Bun.sleep(1000);
    const now = await edges();
    if (stopping) return;
    screen.show(render(now, before, (performance.now() - started) / 1000));
    before = now;
  }
}

/** Counts at the moment the shop opened: what failed before then was still being set up. */
let opening: ReadonlyMap<string, Edge> = new Map();

function reviewsOf(map: ReadonlyMap<string, Edge>): Edge {
  const edge = map.get("default/frontend default/reviews");
  if (edge === undefined) throw new Error("nobody has called reviews");
  return edge;
}

/** Counts the split over a window; smooth weighting makes it exact up to requests in flight. */
async function checkSplit(v1: number, v2: number, seconds: number): Promise<void> {
  const before = reviewsOf(await edges());
  await watch(seconds);
  const window = difference(reviewsOf(await edges()), before);
  const first = window.subsets.get("v1") ?? 0;
  const second = window.subsets.get("v2") ?? 0;
  const due = ((first + second) * v2) / (v1 + v2);
  check(
    `reviews split ${v1}/${v2}: v1 ${first}, v2 ${second} of ${first + second} (due: ${due.toFixed(1)})`,
    first + second > 50 && Math.abs(second - due) <= 4,
  );
}

function route(v1: number, v2: number): string {
  const file = join(folder, `split-${v1}-${v2}.yaml`);
  const text = readFileSync(FILE, "utf8")
    .split("---")
    .find((part) => part.includes("kind: HTTPRoute"));
  writeFileSync(
    file,
    (text ?? "").replace("weight: 90", `weight: ${v1}`).replace("weight: 10", `weight: ${v2}`),
  );
  return file;
}

async function revision(): Promise<number> {
  const list = JSON.parse(await weft("history", "-o", "json")) as { revision: number }[];
  return Math.max(...list.map(({ revision }) => revision));
}

/** Gives the revision that sends half of the requests to v2. */
async function story(): Promise<number> {
  screen.say("\n1. Traffic as configured: 90 % to reviews v1, 10 % to v2");
  const first = await revision();
  await checkSplit(90, 10, 5);

  screen.say("\n2. Half of it to v2: weft apply --wait");
  await weft("apply", "-f", route(50, 50), "--wait", "-m", "half to v2");
  const half = await revision();
  await checkSplit(50, 50, 4);

  screen.say("\n3. kill -9 of the control plane while the shopper goes on");
  const run = JSON.parse(readFileSync(join(folder, "controlplane/run.json"), "utf8"));
  process.kill((run as { pid: number }).pid, "SIGKILL");
  await watch(4);
  await until("the control plane is back", () => weft("status", "-o", "json"), 20_000);
  check("the control plane came back", true);

  screen.say(`\n4. Back to revision ${first}: weft rollback ${first} --wait`);
  await weft("rollback", String(first), "--wait");
  await checkSplit(90, 10, 5);
  return half;
}

function checkEdges(map: ReadonlyMap<string, Edge>): void {
  const expected = [
    "shopper → frontend",
    "frontend → catalogue",
    "frontend → reviews",
    "frontend → orders",
    "orders → redis",
  ];
  for (const name of expected) {
    const [source, destination] = name.split(" → ");
    const key = `default/${source} default/${destination}`;
    const total = map.get(key);
    const edge = total === undefined ? undefined : difference(total, opening.get(key));
    const amount = edge === undefined ? 0 : amountOf(edge);
    const unit = edge?.protocol === "tcp" ? "bytes" : "requests";
    check(
      `${name}: ${edge?.encrypted ?? 0} of ${amount} ${unit} over mutual TLS, ${edge?.failed ?? 0} failed`,
      edge !== undefined && amount > 0 && edge.encrypted === amount && edge.failed === 0,
    );
  }
}

function yourTurn(half: number): string {
  return [
    "\nYour turn, in another terminal (Ctrl-C here ends the demo):",
    `  export WEFT_DATA=${folder}/controlplane PATH=$PATH:${dirname(WEFT)}`,
    "  weft status",
    "  weft check",
    "  weft history",
    `  weft rollback ${half} --wait        # half to v2 again: watch SPLIT`,
    "",
  ].join("\n");
}

async function main(): Promise<number> {
  const started = performance.now();
  screen.say("starting the example mesh (six services, a shopper, redis) …");
  await until("the mesh is up", async () => existsSync(ready) || undefined, 60_000);
  await until("the shop is open", async () => ((await stats()).ok > 0 ? true : undefined), 60_000);
  await findTargets();
  opening = await edges();
  screen.say(
    `open after ${((performance.now() - started) / 1000).toFixed(1)} s; ` +
      `${targets.length} proxies`,
  );
  const half = await story();
  screen.say("\n5. The whole time");
  checkEdges(await edges());
  const total = await stats();
  check(
    `shopper: ${total.sent} requests, ${total.failed} failed`,
    total.failed === 0 && total.ok > 500,
  );
  for (const error of total.errors.slice(0, 5)) screen.say(`    ${error}`);
  screen.say(
    problems.length === 0
      ? `\nall of it holds (${((performance.now() - started) / 1000).toFixed(0)} s)`
      : `\n${problems.length} claims do not hold`,
  );
  if (!exitAfter) {
    screen.say(yourTurn(half));
    while (!stopping) await watch(3600);
    await new Promise(() => {}); // stop() ends the process.
  }
  return problems.length === 0 ? 0 : 1;
}

async function stop(code: number): Promise<never> {
  stopping = true;
  up.kill("SIGTERM");
  await Promise.race([up.exited, Bun.sleep(15_000)]);
  if (code === 0) rmSync(folder, { recursive: true, force: true });
  else screen.say(`logs and state are in ${folder}`);
  process.exit(code);
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => void stop(0));
}
try {
  await stop(await main());
} catch (error) {
  // What fails while everything is being stopped says nothing.
  if (stopping) await new Promise(() => {});
  screen.say(`\n${error instanceof Error ? error.message : error}`);
  screen.say(readFileSync(`${log}.err`, "utf8").split("\n").slice(-25).join("\n"));
  await stop(1);
}
