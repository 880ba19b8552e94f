/**
 * Slow clients by slowhttptest, 2,000 at a time, beside steady load that nothing may fail: slow
 * heads, bodies that drip, answers hardly read. Pass after pass, so that what stays behind adds up.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { memoryOf } from "../../scripts/bench/process.ts";
import { load } from "../harness/load.ts";
import {
  ask,
  type Running,
  run,
  type Sidecar,
  TestMesh,
  takePorts,
  until,
} from "../harness/mesh.ts";
import { type App, nginx } from "../harness/servers.ts";

const SLOW = 2000;
/** What the memory of a process may differ by between two passes, megabytes. */
const NOISE_MB = 16;
/** The same where hundreds of megabytes pass by that the collector has not seen yet. */
const BULK_NOISE_MB = 64;

let mesh: TestMesh;
let app: App;
let web: Sidecar;
let cart: Sidecar;
const upstream = takePorts(1);

beforeAll(async () => {
  mesh = await TestMesh.start();
  const page = "x".repeat(1000);
  app = await nginx(takePorts(1), `location = / { return 200 "${page}"; }`, {
    big: "x".repeat(1024 * 1024),
  });
  cart = await mesh.sidecar({ service: "cart", app: [`80=${app.port}`] });
  web = await mesh.sidecar({ service: "web", upstream: [`cart:${upstream}`] });
  await until("cart is known", async () => (await ask(web.outbound, "cart")).ok);
}, 60_000);

afterAll(async () => {
  app?.stop();
  await mesh?.stop();
});

/** Connections that the kernel holds open at a local port. */
function connectionsAt(port: number): number {
  const at = `:${port.toString(16).toUpperCase().padStart(4, "0")} `;
  const lines = readFileSync("/proc/net/tcp", "utf8").split("\n");
  return lines.filter((line) => line.slice(6, 20).endsWith(at) && line.slice(34, 36) === "01")
    .length;
}

interface Attack {
  readonly flags: readonly string[];
  readonly url: () => string;
  /** Normal use of the same listener. */
  readonly others: () => Promise<Response>;
  readonly victims: () => readonly Running[];
  readonly passes: number;
  readonly noise?: number;
  /** New connections a second. */
  readonly rate?: number;
  /** Seconds until the last of them is closed; undefined: they stay as long as they like. */
  readonly within?: number;
}

const through = (path: string) => () => `http://127.0.0.1:${upstream}${path}`;
const proxies = {
  others: () => ask(web.outbound, "cart"),
  victims: () => [web, cart],
};

const attacks: Readonly<Record<string, Attack>> = {
  "slow heads": { ...proxies, flags: ["-H", "-i", "3"], url: through("/"), passes: 5, within: 20 },
  "slow heads at the API": {
    flags: ["-H", "-i", "3"],
    url: () => `${mesh.api}/readyz`,
    others: () => fetch(`${mesh.api}/readyz`, { tls: { rejectUnauthorized: false } }),
    victims: () => [mesh.controlplane],
    passes: 4,
    // Ten seconds for a handshake, ten for a head.
    within: 25,
  },
  "slow bodies": {
    ...proxies,
    flags: ["-B", "-i", "3", "-x", "8", "-s", "8192"],
    url: through("/"),
    passes: 5,
    within: 20,
  },
  "slow readers": {
    ...proxies,
    flags: ["-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "32"],
    url: through("/big"),
    rate: 250,
    passes: 4,
    noise: BULK_NOISE_MB,
  },
};

/** How long readers that nobody closes stay, seconds; the others at most. */
const STAY = 15;
const LONGEST = 40;

/** Runs slowhttptest to its end. Seconds until its connections were closed. */
async function attack({ flags, url, rate = 1000, within }: Attack): Promise<number> {
  const started = performance.now();
  const fixed = ["-c", String(SLOW), "-r", String(rate), "-u", url()];
  const length = ["-l", String(within === undefined ? STAY : LONGEST)];
  const { stdout } = await run(["slowhttptest", ...flags, ...fixed, ...length]);
  expect(stdout).toContain("Exit status:");
  return (performance.now() - started) / 1000;
}

test.each(Object.entries(attacks))(
  "%s",
  async (name, one) => {
    const memory: number[][] = [];
    for (let pass = 1; pass <= one.passes; pass++) {
      const others = load(one.others);
      let most = 0;
      const sampling = setInterval(() => {
        most = Math.max(most, connectionsAt(app.port));
      }, 100);
      const seconds = await attack(one);
      clearInterval(sampling);
      await others.stop();
      await Bun.sleep(2000);
      memory.push(one.victims().map(({ pid }) => memoryOf(pid).anonymous));
      console.log(
        `${name}, pass ${pass}: gone after ${seconds.toFixed(1)} s; beside them ${others.sent} ` +
          `requests, ${others.failures.length} failed; at most ${most} connections at the ` +
          `application; anonymous memory ${memory.at(-1)!.map(Math.round).join(" and ")} MB`,
      );
      expect(others.failures).toEqual([]);
      if (one.within !== undefined) expect(seconds).toBeLessThan(one.within);
    }
    // Garbage comes and goes: what stays behind shows in the least of the later passes.
    for (const [i, second] of memory[1]!.entries()) {
      const later = memory.slice(2).map((pass) => pass[i]!);
      expect(Math.min(...later)).toBeLessThan(second + (one.noise ?? NOISE_MB));
    }
  },
  200_000,
);
