/**
 * One of three instances misbehaves, byte by byte, in one way after the other; the proxies are real
 * ones. What retries alone make of it, and that nothing is carried out twice.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { type Load, load } from "../harness/load.ts";
import { ask, type Sidecar, TestMesh, until } from "../harness/mesh.ts";

const SECONDS = 4;
const GOOD = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/** Where nothing of a request was taken, and it may go elsewhere without a retry's cost. */
const UNTOUCHED = 0.999;
/** Where retries help as far as their budget goes: a third of all requests needs one. */
const BUDGETED = 0.98;

type Treat = (socket: Bun.Socket) => void;

interface Fault {
  readonly name: string;
  /** Undefined: nobody listens. */
  readonly treat: Treat | undefined;
  /** The share of GETs that must succeed; 0: only without this instance could more of them. */
  readonly atLeast: number;
}

const say =
  (text: string, then?: (socket: Bun.Socket) => void): Treat =>
  (socket) => {
    socket.write(text);
    socket.flush();
    if (then !== undefined) setTimeout(() => then(socket), 20);
  };
const reset = (socket: Bun.Socket) => void socket.terminate();
const finish = (socket: Bun.Socket) => void socket.end();

const drip: Treat = (socket) => {
  socket.write("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
  const timer = setInterval(() => {
    if (socket.write("x") <= 0) clearInterval(timer);
  }, 1000);
};

const faults: readonly Fault[] = [
  { name: "refuses", treat: undefined, atLeast: UNTOUCHED },
  { name: "resets before the head", treat: reset, atLeast: BUDGETED },
  {
    name: "resets within the body",
    treat: say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", reset),
    atLeast: 0,
  },
  { name: "hangs before the head", treat: () => {}, atLeast: BUDGETED },
  { name: "sends a byte per second", treat: drip, atLeast: 0 },
  { name: "closes its half", treat: finish, atLeast: BUDGETED },
  {
    name: "answers 503",
    treat: say("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nno"),
    atLeast: BUDGETED,
  },
  {
    name: "names a wrong Content-Length",
    treat: say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", finish),
    atLeast: 0,
  },
];

/** An application that answers well, or as it is told. */
class Instance {
  readonly port: number;
  /** How often each path arrived. */
  readonly seen = new Map<string, number>();
  treat: Treat = say(GOOD);
  #server: ReturnType<Instance["listen"]>;
  readonly #open = new Set<Bun.Socket>();

  constructor() {
    this.#server = this.listen(0);
    this.port = this.#server.port;
  }

  listen(port: number) {
    const { seen } = this;
    const open = this.#open;
    const data = (socket: Bun.Socket, chunk: Buffer) => {
      // The proxy sends a small request in one piece, and one at a time.
      const path = /^(?:GET|POST) (\S+) /.exec(chunk.toString("latin1"))?.[1];
      if (path === undefined) return;
      seen.set(path, (seen.get(path) ?? 0) + 1);
      this.treat(socket);
    };
    return Bun.listen({
      hostname: "127.0.0.1",
      port,
      allowHalfOpen: true,
      socket: {
        open: (socket) => void open.add(socket),
        data,
        end: finish,
        close: (socket) => void open.delete(socket),
        error() {},
      },
    });
  }

  break(treat: Treat | undefined): void {
    if (treat !== undefined) {
      this.treat = treat;
      return;
    }
    this.#server.stop(true);
    for (const socket of this.#open) socket.terminate();
  }

  mend(refused: boolean): void {
    this.treat = say(GOOD);
    for (const socket of this.#open) socket.terminate();
    if (refused) this.#server = this.listen(this.port);
  }

  stop(): void {
    this.#server.stop(true);
  }
}

const policy = (budget: string) => `apiVersion: weft.dev/v1
kind: TrafficPolicy
metadata: { name: cart }
spec:
  target: { service: cart }
  timeouts: { request: 2s, backendRequest: 500ms }
  retries: { attempts: 2, on: [connect-failure, refused-stream, app-unreachable, reset], codes: [503] }
  retryBudget: ${budget}
`;

const instances = [new Instance(), new Instance(), new Instance()] as const;
const faulty = instances[2];
let mesh: TestMesh;
let web: Sidecar;

beforeAll(async () => {
  mesh = await TestMesh.start();
  for (const { port } of instances) await mesh.sidecar({ service: "cart", app: [`80=${port}`] });
  web = await mesh.sidecar({ service: "web" });
  await mesh.apply(policy("{ percent: 20, minRetryConcurrency: 3 }"), "--wait");
  await until("all serve", allServe);
}, 60_000);

afterAll(async () => {
  for (const instance of instances) instance.stop();
  await mesh?.stop();
});

let next = 0;
const get = () => ask(web.outbound, "cart", `/get/${next++}`);
const post = () => ask(web.outbound, "cart", `/post/${next++}`, { method: "POST", body: "x" });

function arrived(way: string): number[] {
  const all = instances.flatMap(({ seen }) => [...seen]).filter(([path]) => path.startsWith(way));
  const sums = new Map<string, number>();
  for (const [path, count] of all) sums.set(path, (sums.get(path) ?? 0) + count);
  return [...sums.values()];
}

/** Each instance has answered lately, and nobody heard of a failure. */
async function allServe(): Promise<boolean> {
  for (const { seen } of instances) seen.clear();
  for (let i = 0; i < 20; i++) if (!(await get()).ok) return false;
  return instances.every(({ seen }) => seen.size > 0);
}

async function during(treat: Treat | undefined, loads: () => readonly Load[]) {
  for (const { seen } of instances) seen.clear();
  const running = loads();
  await Bun.sleep(300);
  faulty.break(treat);
  await Bun.sleep(SECONDS * 1000);
  await Promise.all(running.map((one) => one.stop()));
  const tries = arrived("/get/").reduce((a, b) => a + b, 0);
  return { running, tries, posts: arrived("/post/") };
}

test.each(faults)(
  "$name",
  async ({ name, treat, atLeast }) => {
    const { running, tries, posts } = await during(treat, () => [
      load(get, { concurrency: 16, perSecond: 400 }),
      load(post, { concurrency: 4, perSecond: 50 }),
    ]);
    const [gets, sent] = running as [Load, Load];
    faulty.mend(treat === undefined);
    const mended = performance.now();
    await until("all serve again", allServe, 15_000);
    const recovery = (performance.now() - mended) / 1000;
    const percent = (of: Load) => `${((100 * of.ok) / of.sent).toFixed(2)} %`;
    const kinds = [...new Set(gets.failures.map((text) => text.slice(0, 30).trim()))];
    console.log(
      `${name}: ${percent(gets)} of ${gets.sent} GET and ${percent(sent)} of ${sent.sent} POST ` +
        `succeed; ${(tries / gets.sent).toFixed(2)} tries each; recovers after ` +
        `${recovery.toFixed(1)} s ${kinds.join(" | ")}`,
    );
    expect(Math.max(...posts)).toBe(1);
    expect(gets.ok / gets.sent).toBeGreaterThanOrEqual(atLeast);
  },
  60_000,
);

test("the budget bounds what a fault may multiply", async () => {
  await mesh.apply(policy("{ percent: 20, minRetryConcurrency: 0 }"), "--wait");
  const { running, tries } = await during(reset, () => [
    load(get, { concurrency: 64, perSecond: 1000 }),
  ]);
  faulty.mend(false);
  const [gets] = running as [Load];
  console.log(
    `without retries beyond the budget: ${((100 * gets.ok) / gets.sent).toFixed(2)} % of ` +
      `${gets.sent} GET succeed; ${(tries / gets.sent).toFixed(2)} tries each`,
  );
  expect(tries / gets.sent).toBeLessThanOrEqual(1.2);
}, 60_000);
