/**
 * Load from programs others wrote: wrk and fortio for HTTP, iperf3 for bytes; for handshakes a
 * client of our own. All of it on the load core.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { ClientTask } from "./client.ts";
import type { Work } from "./measure.ts";

export const LOAD_CORE = "1";
export const PROXY_CORE = "0";

async function run(command: readonly string[]): Promise<string> {
  const child = Bun.spawn([...command], { stdout: "pipe", stderr: "pipe" });
  const text = await new Response(child.stdout).text();
  await child.exited;
  return text;
}

function milliseconds(text: string): number {
  const value = Number.parseFloat(text);
  if (text.endsWith("us")) return value / 1000;
  return text.endsWith("ms") ? value : value * 1000;
}

/** wrk with 64 keep-alive connections on one thread. */
export async function wrk(url: string, seconds: number, host?: string): Promise<Work> {
  const header = host === undefined ? [] : ["-H", `Host: ${host}`];
  const text = await run([
    ...["taskset", "-c", LOAD_CORE, "wrk", "-t1", "-c64", `-d${seconds}s`, "--latency"],
    ...header,
    url,
  ]);
  const requests = Number(/(\d+) requests in/.exec(text)?.[1] ?? 0);
  const non2xx = Number(/Non-2xx or 3xx responses: (\d+)/.exec(text)?.[1] ?? 0);
  const socket = /Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(text);
  const broken = (socket?.slice(1) ?? []).reduce((sum, count) => sum + Number(count), 0);
  const p99 = /^\s+99%\s+(\S+)/m.exec(text)?.[1];
  return {
    amount: requests,
    seconds,
    failed: non2xx + broken,
    ...(p99 === undefined ? {} : { p99Ms: milliseconds(p99) }),
  };
}

/** One iperf3 stream towards the server behind the proxies; the amount is in gigabits. */
export async function iperf(port: number, seconds: number, address = "127.0.0.1"): Promise<Work> {
  const text = await run([
    ...["taskset", "-c", LOAD_CORE, "iperf3", "-J", "-c", address, "-p", String(port)],
    ...["-t", String(seconds)],
  ]);
  const report = JSON.parse(text) as {
    error?: string;
    end?: { sum_received?: { bytes: number; seconds: number } };
  };
  const received = report.end?.sum_received;
  if (received === undefined || received.seconds === 0) {
    return { amount: 0, seconds, failed: 1 };
  }
  return { amount: (received.bytes * 8) / 1e9, seconds: received.seconds, failed: 0 };
}

/** Where scripts/bench.sh puts it. */
export const FORTIO = join(import.meta.dir, "../../build/peers/fortio");

export function hasFortio(): boolean {
  return existsSync(FORTIO);
}

interface FortioReport {
  readonly DurationHistogram: {
    readonly Count: number;
    readonly Percentiles: readonly { readonly Percentile: number; readonly Value: number }[];
  };
  readonly RetCodes: Readonly<Record<string, number>>;
  /** Nanoseconds. */
  readonly ActualDuration: number;
}

/** 2,000 requests a second over 32 connections, evenly spread and never caught up. */
export async function fortio(url: string, seconds: number, host?: string): Promise<Work> {
  const text = await run([
    ...["taskset", "-c", LOAD_CORE, FORTIO, "load", "-quiet", "-json", "-", "-qps", "2000"],
    ...["-c", "32", "-uniform", "-nocatchup", "-r", "0.00001", "-p", "50,99"],
    ...["-t", `${seconds}s`, ...(host === undefined ? [] : ["-H", `Host: ${host}`]), url],
  ]);
  const report = JSON.parse(text) as FortioReport;
  const { Count: amount, Percentiles: percentiles } = report.DurationHistogram;
  const percentile = (wanted: number) =>
    (percentiles.find((entry) => entry.Percentile === wanted)?.Value ?? Number.NaN) * 1000;
  return {
    amount,
    seconds: report.ActualDuration / 1e9,
    failed: amount - (report.RetCodes["200"] ?? 0),
    p50Ms: percentile(50),
    p99Ms: percentile(99),
  };
}

function startClient(task: ClientTask) {
  const file = join(import.meta.dir, "client.ts");
  return Bun.spawn(["taskset", "-c", LOAD_CORE, process.execPath, file, JSON.stringify(task)], {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "inherit",
  });
}

/** New TLS connections, one after the other in 16 lanes. */
export async function handshakes(task: Omit<ClientTask, "kind">, seconds: number): Promise<Work> {
  const child = startClient({ ...task, kind: "handshakes", seconds });
  const { done, failed } = JSON.parse(await new Response(child.stdout).text()) as {
    done: number;
    failed: number;
  };
  return { amount: done, seconds, failed };
}

/** Opens `count` connections, calls `held` with how many are open, and lets them go. */
export async function holding<T>(
  task: Omit<ClientTask, "kind">,
  count: number,
  held: (open: number) => Promise<T>,
): Promise<T> {
  const child = startClient({ ...task, kind: "idle", count });
  const reader = child.stdout.getReader();
  const line = new TextDecoder().decode((await reader.read()).value);
  try {
    return await held((JSON.parse(line) as { open: number }).open);
  } finally {
    await child.stdin.end();
    await child.exited;
  }
}
