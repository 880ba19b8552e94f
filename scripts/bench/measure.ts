/**
 * The measuring method: the proxies under test and their peers take turns in short slices, in
 * random order, under the same load; CPU comes from the kernel's own accounting of each thread;
 * slices in which the hypervisor took time away are dropped; what counts is the ratio within a
 * pair of neighbouring slices, its median, and a bootstrap interval around it.
 */
import { readdirSync, readFileSync } from "node:fs";

export interface Interval {
  readonly median: number;
  readonly lo: number;
  readonly hi: number;
}

/** One party of a scenario: who to load and whose CPU to count. */
export interface Contender {
  readonly name: string;
  readonly pids: () => readonly number[];
  /** Runs one slice of load and answers how much work was done in it. */
  readonly load: (seconds: number) => Promise<Work>;
}

export interface Work {
  /** Requests, bytes, handshakes: the unit of the scenario. */
  readonly amount: number;
  readonly seconds: number;
  readonly failed: number;
  readonly p50Ms?: number;
  readonly p99Ms?: number;
}

export interface Sample {
  /** CPU microseconds per unit of work. */
  readonly cpu: number;
  /** Units of work per second. */
  readonly rate: number;
  readonly p50Ms: number | undefined;
  readonly p99Ms: number | undefined;
  readonly failed: number;
  readonly steal: number;
}

const STEAL_MAX = 0.02;
const BOOTSTRAP_ROUNDS = 2000;

/** CPU time used so far by all threads of the processes, in microseconds. */
export function cpuMicros(pids: readonly number[]): number {
  let nanos = 0;
  for (const pid of pids) {
    let tasks: string[];
    try {
      tasks = readdirSync(`/proc/${pid}/task`);
    } catch {
      continue;
    }
    for (const task of tasks) {
      try {
        nanos += Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, "utf8").split(" ")[0]);
      } catch {
        // The thread ended between the listing and the read.
      }
    }
  }
  return nanos / 1000;
}

function stealTicks(): { steal: number; total: number } {
  const fields = readFileSync("/proc/stat", "utf8").split("\n")[0]?.split(/\s+/).slice(1, 9) ?? [];
  const ticks = fields.map(Number);
  return { steal: ticks[7] ?? 0, total: ticks.reduce((sum, tick) => sum + tick, 0) };
}

async function slice(contender: Contender, seconds: number): Promise<Sample> {
  const pids = contender.pids();
  const stolenBefore = stealTicks();
  const cpuBefore = cpuMicros(pids);
  const work = await contender.load(seconds);
  const cpuAfter = cpuMicros(pids);
  const stolenAfter = stealTicks();
  return {
    cpu: (cpuAfter - cpuBefore) / work.amount,
    rate: work.amount / work.seconds,
    p50Ms: work.p50Ms,
    p99Ms: work.p99Ms,
    failed: work.failed,
    steal:
      (stolenAfter.steal - stolenBefore.steal) /
      Math.max(1, stolenAfter.total - stolenBefore.total),
  };
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length === 0) return Number.NaN;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? upper) + upper) / 2;
}

/** Median with a 95 % bootstrap interval. */
export function interval(values: readonly number[], random: () => number): Interval {
  const medians: number[] = [];
  for (let round = 0; round < BOOTSTRAP_ROUNDS; round++) {
    const draw = values.map(() => values[Math.floor(random() * values.length)] ?? Number.NaN);
    medians.push(median(draw));
  }
  medians.sort((a, b) => a - b);
  return {
    median: median(values),
    lo: medians[Math.floor(BOOTSTRAP_ROUNDS * 0.025)] ?? Number.NaN,
    hi: medians[Math.floor(BOOTSTRAP_ROUNDS * 0.975)] ?? Number.NaN,
  };
}

function shuffled<T>(items: readonly T[], random: () => number): T[] {
  const result = [...items];
  for (let i = result.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    const held = result[i] as T;
    result[i] = result[j] as T;
    result[j] = held;
  }
  return result;
}

/** Interleaved slices: one list of samples per contender, index = round. */
export async function interleave(
  contenders: readonly Contender[],
  rounds: number,
  seconds: number,
  random: () => number,
  progress: (round: number) => void,
): Promise<Map<string, Sample[]>> {
  const samples = new Map<string, Sample[]>(contenders.map(({ name }) => [name, []]));
  for (const contender of contenders) await contender.load(2); // Warm up: JIT tiers, pools.
  for (let round = 0; round < rounds; round++) {
    progress(round);
    for (const contender of shuffled(contenders, random)) {
      samples.get(contender.name)?.push(await slice(contender, seconds));
    }
  }
  return samples;
}

/** Ratios ours ÷ peer, pair by pair, leaving out pairs in which either slice lost time. */
export function pairRatios(
  ours: readonly Sample[],
  peer: readonly Sample[],
  of: (sample: Sample) => number,
): number[] {
  const ratios: number[] = [];
  ours.forEach((sample, round) => {
    const other = peer[round];
    if (other === undefined || sample.steal > STEAL_MAX || other.steal > STEAL_MAX) return;
    const ratio = of(sample) / of(other);
    if (Number.isFinite(ratio)) ratios.push(ratio);
  });
  return ratios;
}

export type Verdict = "met" | "open" | "missed";

/** A budget is met when the whole interval lies on its good side. */
export function verdictOf(value: Interval, budget: number, better: "lower" | "higher"): Verdict {
  const [good, bad] = better === "lower" ? [value.hi, value.lo] : [value.lo, value.hi];
  const within = (x: number) => (better === "lower" ? x <= budget : x >= budget);
  if (within(good)) return "met";
  return within(bad) ? "open" : "missed";
}
