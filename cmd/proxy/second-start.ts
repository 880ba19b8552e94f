/**
 * Starts a proxy again, under the same process id, with what can only be set before it starts.
 *
 * Quick copies: on AMD Zen 3 and 4, glibc before 2.40 copies blocks of 4 KB and more by `rep movsb`,
 * which takes 16 times as long when the destination lies up to 31 bytes above the source, counted
 * within a page (glibc bug 30994). TLS records are read into just such places: it halves a proxy's
 * throughput. glibc reads its tunables before any code of ours runs.
 *
 * A heap that fits: JavaScriptCore collects by the machine's memory. In a control group with less
 * of it, a flood leaves so much garbage that the kernel ends the process before it is collected.
 */
import { dlopen, ptr } from "bun:ffi";
import { readFileSync } from "node:fs";
import { totalmem } from "node:os";

/** Bytes of memory that JavaScriptCore believes to have; Bun passes such variables on to it. */
const RAM_SIZE = "BUN_JSC_forceRAMSize";
const TUNABLES = "GLIBC_TUNABLES";
const THRESHOLD = "glibc.cpu.x86_rep_movsb_threshold";
/** No copy is as large: vector moves are used for all of them. */
const NEVER = `${THRESHOLD}=0x40000000`;

const PAGE = 4096;
/** As a TLS record. */
const COPIED = 4 * PAGE;
const ROUNDS = 8;
/** Interrupted copies are slow too: the best of several rounds counts. */
const SLOW_FACTOR = 4;

/**
 * Whether copies between places that look alike to the CPU take far longer than others. Costs 50
 * to 100 µs. `clock` in nanoseconds.
 */
export function copiesAreSlow(clock: () => number): boolean {
  const memory = new Uint8Array(16 * PAGE).fill(1);
  const from = memory.subarray(0, COPIED);
  const best = (gap: number) => {
    const to = memory.subarray(8 * PAGE + gap, 8 * PAGE + gap + COPIED);
    let least = Number.POSITIVE_INFINITY;
    for (let round = 0; round < ROUNDS; round++) {
      const start = clock();
      to.set(from);
      least = Math.min(least, clock() - start);
    }
    return least;
  };
  return best(16) > SLOW_FACTOR * best(PAGE / 2);
}

/** What a start lacks. */
export interface Lacks {
  readonly quickCopies: boolean;
  /** Memory that the heap should be sized by, bytes; undefined: the machine's is right. */
  readonly memory: number | undefined;
}

/**
 * The environment of the second start, as in /proc/self/environ; undefined when this is the second
 * start already, or somebody has set the same things.
 */
export function preparedEnvironment(environ: Buffer, lacks: Lacks): Buffer | undefined {
  const entries = environ.toString("latin1").split("\0").filter(Boolean);
  let changed = false;
  const tunables = entries.findIndex((entry) => entry.startsWith(`${TUNABLES}=`));
  if (lacks.quickCopies && tunables < 0) {
    entries.push(`${TUNABLES}=${NEVER}`);
    changed = true;
  } else if (lacks.quickCopies && !entries[tunables]!.includes(THRESHOLD)) {
    entries[tunables] += `${entries[tunables]!.endsWith("=") ? "" : ":"}${NEVER}`;
    changed = true;
  }
  if (lacks.memory !== undefined && !entries.some((entry) => entry.startsWith(`${RAM_SIZE}=`))) {
    entries.push(`${RAM_SIZE}=${lacks.memory}`);
    changed = true;
  }
  if (!changed) return undefined;
  return Buffer.from(entries.map((entry) => `${entry}\0`).join(""), "latin1");
}

/** The limit of the control group, where that is less than the machine has. */
function memoryLimit(): number | undefined {
  const limit = process.constrainedMemory();
  return limit > 0 && limit < totalmem() ? limit : undefined;
}

/**
 * Replaces this process by a new start of itself if this one lacks something; returns if not, or
 * if there is no way: then everything works as well, only slower.
 */
export function ensureSurroundings(): void {
  if (process.platform !== "linux") return;
  const quickCopies = process.arch === "x64" && copiesAreSlow(Bun.nanoseconds);
  const lacks: Lacks = { quickCopies, memory: memoryLimit() };
  if (!lacks.quickCopies && lacks.memory === undefined) return;
  try {
    const env = preparedEnvironment(readFileSync("/proc/self/environ"), lacks);
    if (env === undefined) return;
    execute(process.execPath, readFileSync("/proc/self/cmdline"), env);
  } catch {
    // No /proc, or another C library.
  }
}

/** execve(2); `args` and `env` are NUL-terminated strings one after another. */
function execute(path: string, args: Buffer, env: Buffer): void {
  const { symbols: libc } = dlopen("libc.so.6", {
    execve: { args: ["ptr", "ptr", "ptr"], returns: "i32" },
  });
  const file = Buffer.from(`${path}\0`);
  const argv = pointers(args);
  const envp = pointers(env);
  libc.execve(ptr(file), ptr(argv), ptr(envp));
}

/** Addresses of the strings in `strings`, ended by a null pointer. */
function pointers(strings: Buffer): BigUint64Array {
  const start = BigInt(ptr(strings));
  const list: bigint[] = [];
  let at = 0;
  while (at < strings.length) {
    list.push(start + BigInt(at));
    at = strings.indexOf(0, at) + 1;
    if (at === 0) break;
  }
  return BigUint64Array.from([...list, 0n]);
}
