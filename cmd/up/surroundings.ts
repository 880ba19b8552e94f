/** What `up` asks of its surroundings: free ports, readiness, documents nobody wrote. */
import { mkdirSync, readFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import type { ProcessResource, Resource, ServiceResource } from "../../src/config/resource.ts";
import { Failure } from "../../src/error.ts";
import { lockFolder } from "../../src/store/lock.ts";
import { text } from "../cli/json.ts";
import { readAppPorts } from "../grammar.ts";
import type { Child } from "./child.ts";
import type { ProxyPlan } from "./plan.ts";

/**
 * Creates the folder and keeps a second `up` off it until it is disposed: it would end the first one's children.
 *
 * @throws Failure when another runs there, or it cannot be written.
 */
export function takeFolder(folder: string): Disposable {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "failed";
    throw new Failure(
      "data_unwritable",
      `cannot create the data folder ${folder} (${code})`,
      "choose another with --data DIR",
    );
  }
  try {
    const lock = lockFolder(folder);
    return { [Symbol.dispose]: () => lock.release() };
  } catch (error) {
    if (!(error instanceof Failure) || error.code !== "data_in_use") throw error;
    throw new Failure(
      "data_in_use",
      `another weft up already runs from ${folder}`,
      "stop it, or give this one its own --data DIR and --port-base N",
    );
  }
}

/** A loopback port nobody listens on right now. */
export function freePort(): number {
  const server = createServer().listen(0, "127.0.0.1");
  const address = server.address();
  server.close();
  if (address === null || typeof address === "string") {
    throw new Failure("no_port", "no free port on 127.0.0.1", "stop something that listens");
  }
  return address.port;
}

/** `host:port` of a proxy's metrics: what it has chosen, else what it tries first. */
export function metricsOf(proxy: ProxyPlan): string {
  try {
    const run: unknown = JSON.parse(readFileSync(join(proxy.data, "run.json"), "utf8"));
    const metrics = text(run, "metrics");
    if (metrics !== "") return metrics;
  } catch {
    // Not written yet.
  }
  return `127.0.0.1:${proxy.portBase + 20}`;
}

const POLL_MS = 50;
/** After this long a person wants to know what is missing. */
const SLOW_MS = 3_000;

/**
 * Repeats `attempt` until it succeeds. `slow` hears once why it takes long.
 *
 * @throws Failure when a watched child ends first, or the time is up.
 */
export async function waitFor<T>(
  what: string,
  timeoutMs: number,
  watched: Child | readonly Child[],
  attempt: () => Promise<T>,
  slow: (why: string) => void = () => {},
): Promise<T> {
  let told = false;
  const startedAt = performance.now();
  let ended: string | undefined;
  for (const child of Array.isArray(watched) ? watched : [watched]) {
    void child.early.then((how: string) => {
      ended = `${child.name} ended before it was ready: ${how}`;
    });
  }
  const deadline = startedAt + timeoutMs;
  let last: unknown;
  while (performance.now() < deadline && ended === undefined) {
    try {
      return await attempt();
    } catch (error) {
      last = error;
    }
    await Bun.sleep(POLL_MS);
    if (!told && performance.now() - startedAt > SLOW_MS) {
      told = true;
      slow(last instanceof Error ? last.message : String(last));
    }
  }
  if (ended !== undefined) {
    throw new Failure("child_ended", ended, "read its log above, and check its command");
  }
  const why = last instanceof Error ? last.message : String(last);
  const seconds = timeoutMs / 1000;
  throw new Failure(
    "not_ready",
    `${what} is not ready after ${seconds} s: ${why}`,
    "its log above says why",
  );
}

/** A Service for each process whose service no document declares, from its ports. */
export function serviceDocuments(
  written: readonly Resource[],
  processes: readonly ProcessResource[],
): readonly ServiceResource[] {
  const known = new Set(
    written
      .filter(({ kind }) => kind === "Service")
      .map(({ metadata }) => `${metadata.namespace}/${metadata.name}`),
  );
  const made = new Map<string, ServiceResource>();
  for (const { metadata, spec } of processes) {
    const key = `${metadata.namespace}/${spec.service}`;
    const app = readAppPorts(spec.app ?? [], `Process ${metadata.name}, app`);
    if (known.has(key) || made.has(key) || app.length === 0) continue;
    made.set(key, {
      apiVersion: "weft.dev/v1",
      kind: "Service",
      metadata: { name: spec.service, namespace: metadata.namespace, labels: {} },
      spec: {
        ports: app.map(({ servicePort, protocol }) =>
          protocol === undefined ? { port: servicePort } : { port: servicePort, protocol },
        ),
      },
    });
  }
  return [...made.values()];
}
