/**
 * Starts a proxy again where the C library's `memmove` is slow.
 *
 * On AMD Zen 3 and 4, glibc before 2.40 copies blocks of 4 KB and more by `rep movsb`, which takes
 * 16 times as long when the destination lies up to 31 bytes above the source, counted within a page
 * (glibc bug 30994). TLS records are read into just such places: it halves a proxy's throughput.
 * glibc reads its tunables before any code of ours runs, so the process replaces itself by itself.
 */
import { dlopen, ptr } from "bun:ffi";
import { readFileSync } from "node:fs";

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

/**
 * The environment of the second start, as in /proc/self/environ; undefined when this is the second
 * start already, or somebody has set the threshold.
 */
export function tunedEnvironment(environ: Buffer): Buffer | undefined {
  const entries = environ.toString("latin1").split("\0").filter(Boolean);
  const at = entries.findIndex((entry) => entry.startsWith(`${TUNABLES}=`));
  if (at < 0) return Buffer.from(terminated([...entries, `${TUNABLES}=${NEVER}`]), "latin1");
  if (entries[at]!.includes(THRESHOLD)) return undefined;
  entries[at] += `${entries[at]!.endsWith("=") ? "" : ":"}${NEVER}`;
  return Buffer.from(terminated(entries), "latin1");
}

function terminated(entries: readonly string[]): string {
  return entries.map((entry) => `${entry}\0`).join("");
}

/**
 * Replaces this process by a new start of itself with quick copies, under the same process id;
 * returns if there is no need, or no way: then everything works as well, only slower.
 */
export function ensureFastCopies(): void {
  if (process.platform !== "linux" || process.arch !== "x64") return;
  if (!copiesAreSlow(Bun.nanoseconds)) return;
  try {
    const env = tunedEnvironment(readFileSync("/proc/self/environ"));
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
