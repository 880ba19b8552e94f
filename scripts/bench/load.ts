/** Load from programs others wrote: wrk for HTTP, iperf3 for bytes. Pinned to the load core. */
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
