/**
 * A client that the programs others wrote do not cover, run as a process of its own on the load
 * core. It reads its task as JSON from the command line and answers in JSON lines:
 *
 *   handshakes   opens and closes TLS connections for some seconds, 16 at a time: `{ "done": n }`
 *   idle         opens connections, says `{ "open": n }`, and holds them until stdin ends
 */
import type { Connection } from "../../src/net/connection.ts";
import { dial } from "../../src/net/dial.ts";
import { tlsContext } from "../../src/net/tls.ts";

export interface ClientTask {
  readonly kind: "handshakes" | "idle";
  readonly port: number;
  readonly seconds?: number;
  readonly count?: number;
  readonly tls?: {
    readonly cert: string;
    readonly key: string;
    readonly ca: readonly string[];
    readonly serverName: string;
    readonly alpn: string;
  };
}

const AT_ONCE = 16;
const TIMEOUT_MS = 20_000;

function dialer(task: ClientTask): () => Promise<Connection> {
  const { port, tls } = task;
  const secure =
    tls === undefined
      ? {}
      : { tls: { context: tlsContext(tls), serverName: tls.serverName, alpn: tls.alpn } };
  return () => {
    const { promise, resolve, reject } = Promise.withResolvers<Connection>();
    dial(
      { host: "127.0.0.1", port, timeoutMs: TIMEOUT_MS, ...secure },
      (c) => {
        resolve(c);
        return { data() {}, end() {}, drain() {}, close() {} };
      },
      reject,
    );
    return promise;
  };
}

async function handshakes(task: ClientTask): Promise<void> {
  const connect = dialer(task);
  const end = performance.now() + (task.seconds ?? 1) * 1000;
  let done = 0;
  let failed = 0;
  const lane = async () => {
    while (performance.now() < end) {
      try {
        (await connect()).destroy();
        done++;
      } catch {
        failed++;
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, lane));
  console.log(JSON.stringify({ done, failed }));
}

async function idle(task: ClientTask): Promise<void> {
  const connect = dialer(task);
  const held: Connection[] = [];
  let failed = 0;
  let left = task.count ?? 0;
  const lane = async () => {
    while (left-- > 0) {
      try {
        held.push(await connect());
      } catch {
        failed++;
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, lane));
  console.log(JSON.stringify({ open: held.filter((c) => !c.closed).length, failed }));
  for await (const _ of Bun.stdin.stream()) {
    // Held until whoever started this is done.
  }
}

const task = JSON.parse(process.argv[2] ?? "{}") as ClientTask;
await (task.kind === "idle" ? idle(task) : handshakes(task));
process.exit(0);
