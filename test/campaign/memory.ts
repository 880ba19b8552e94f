/**
 * Two proxies in control groups of 160 MB, 200 callers who hardly read large answers, and load with
 * small and large answers at the same time. Needs the right to make a control group.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { memoryOf } from "../../scripts/bench/process.ts";
import { load } from "../harness/load.ts";
import {
  ask,
  metrics,
  type Sidecar,
  sumMetric,
  TestMesh,
  takePorts,
  until,
  WEFT,
} from "../harness/mesh.ts";
import { type App, nginx } from "../harness/servers.ts";

const LIMIT = 160_000_000;
const READERS = 200;
const SECONDS = 40;

/** The memory control group of this process, in either version of the kernel's interface. */
function ownGroup(): { readonly folder: string; readonly limit: string; readonly events: string } {
  const groups = readFileSync("/proc/self/cgroup", "utf8");
  const first = /^\d+:(?:\w+,)*memory(?:,\w+)*:(.*)$/m.exec(groups)?.[1];
  if (first !== undefined) {
    const files = { limit: "memory.limit_in_bytes", events: "memory.oom_control" };
    return { folder: `/sys/fs/cgroup/memory${first}`, ...files };
  }
  const second = /^0::(.*)$/m.exec(groups)?.[1] ?? "/";
  return { folder: `/sys/fs/cgroup${second}`, limit: "memory.max", events: "memory.events" };
}

interface Group {
  /** What to put before a command. */
  readonly within: readonly string[];
  /** Processes that the kernel has killed in it. */
  killed(): number;
  remove(): void;
}

function group(name: string): Group | undefined {
  const { folder, limit, events } = ownGroup();
  const own = `${folder}/weft-test-${process.pid}-${name}`;
  try {
    mkdirSync(own);
    writeFileSync(`${own}/${limit}`, String(LIMIT));
  } catch {
    if (existsSync(own)) rmdirSync(own);
    return undefined;
  }
  return {
    within: ["sh", "-c", `echo $$ >${own}/cgroup.procs && exec "$@"`, "sh"],
    killed: () => Number(/^oom_kill (\d+)$/m.exec(readFileSync(`${own}/${events}`, "utf8"))?.[1]),
    remove: () => rmdirSync(own),
  };
}

const groups = [group("caller"), group("service")] as const;
const [callers, services] = groups;
const absent = callers === undefined || services === undefined;

let mesh: TestMesh;
let app: App;
let web: Sidecar;
let cart: Sidecar;

async function sidecar(inside: Group, service: string, ...args: readonly string[]) {
  const base = takePorts(60);
  const data = `${mesh.folder}/${service}`;
  const command = [...inside.within, WEFT, "--mode=sidecar", `--service=${service}`];
  const token = `--token-file=${await mesh.token()}`;
  const rest = [`--controlplane=${mesh.api}`, token, `--data=${data}`, `--port-base=${base}`];
  return mesh.proxy([...command, ...rest, ...args], data, base);
}

beforeAll(async () => {
  if (absent) return;
  mesh = await TestMesh.start();
  app = await nginx(takePorts(1), 'location = / { return 200 "small"; }', {
    large: "x".repeat(1024 * 1024),
    huge: "x".repeat(64 * 1024 * 1024),
  });
  cart = await sidecar(services, "cart", `--app=80=${app.port}`);
  web = await sidecar(callers, "web");
  await until("cart is known", async () => (await ask(web.outbound, "cart")).ok);
}, 60_000);

afterAll(async () => {
  app?.stop();
  await mesh?.stop();
  for (const one of groups) one?.remove();
});

/** Reads a little of a huge answer every second, and begins again when it is cut off. */
function slowReader(stopped: () => boolean): void {
  const socket: Socket = connect(web.outboundPort, "127.0.0.1");
  socket.write("GET /huge HTTP/1.1\r\nHost: cart\r\n\r\n");
  socket.on("data", () => {
    socket.pause();
    setTimeout(() => (stopped() ? socket.destroy() : socket.resume()), 1000);
  });
  socket.on("error", () => {});
  socket.on("close", () => {
    if (!stopped()) setTimeout(() => slowReader(stopped), 200);
  });
}

const resting = () => [web, cart].map(({ pid }) => memoryOf(pid).rss);
const shown = (values: readonly number[]) => values.map(Math.round).join(" and ");

const why = absent ? " (not here: no control group can be made)" : "";

test.skipIf(absent)(
  `200 slow readers within 160 MB${why}`,
  async () => {
    for (let i = 0; i < 200; i++) await (await ask(web.outbound, "cart", "/large")).text();
    await Bun.sleep(3000);
    const base = resting();
    let stopped = false;
    for (let i = 0; i < READERS; i++) slowReader(() => stopped);
    const small = load(() => ask(web.outbound, "cart"));
    const large = load(() => ask(web.outbound, "cart", "/large"), { perSecond: 50 });
    let most = [0, 0];
    const end = performance.now() + SECONDS * 1000;
    while (performance.now() < end) {
      most = resting().map((now, i) => Math.max(now, most[i]!));
      await Bun.sleep(250);
    }
    stopped = true;
    await Promise.all([small.stop(), large.stop()]);
    const ended = performance.now();
    const failures = [...small.failures, ...large.failures];
    const shed = await Promise.all([web, cart].map(metrics));
    console.log(
      `small: ${small.ok} of ${small.sent}, large: ${large.ok} of ${large.sent}; ` +
        `${shed.map((text) => sumMetric(text, "weft_connections_shed_total")).join(" and ")} ended; ` +
        `resident ${shown(base)} MB before, at most ${shown(most)} MB`,
    );
    const others = failures.filter((text) => !/^503 overflow|ECONNRESET/.test(text));
    console.log([...new Set(failures.map((text) => text.slice(0, 60)))]);
    expect([callers!.killed(), services!.killed()]).toEqual([0, 0]);
    await until(
      "memory is back",
      () => resting().every((now, i) => now <= base[i]! * 1.2),
      60_000,
    ).catch((error) => {
      throw new Error(`${error}: ${shown(resting())} MB`);
    });
    const seconds = (performance.now() - ended) / 1000;
    console.log(`resident ${shown(resting())} MB ${seconds.toFixed(1)} s afterwards`);
    expect(others).toEqual([]);
    expect(small.ok / small.sent).toBeGreaterThan(0.9);
  },
  180_000,
);
