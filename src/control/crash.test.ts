/** What an acknowledged revision is worth: kill -9 in the middle of applies, and a full disk. */
import { afterEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Failure } from "../error.ts";
import { allResources, lastRevision, listRevisions } from "../store/revisions.ts";
import { openStore } from "../store/store.ts";
import { apply, type ControlState } from "./apply.ts";
import { setAt } from "./changes.ts";

const ROUNDS = 50;
const folders: string[] = [];

function folder(): string {
  const made = mkdtempSync(join(tmpdir(), "weft-crash-"));
  folders.push(made);
  return made;
}

afterEach(() => {
  for (const made of folders.splice(0)) {
    Bun.spawnSync(["umount", "-l", made], { stderr: "ignore" });
    rmSync(made, { recursive: true, force: true });
  }
});

/** Applies pairs of services for ever, telling each acknowledged revision. */
const CHILD = `
import { writeSync } from "node:fs";
import { apply } from ${JSON.stringify(join(import.meta.dir, "apply.ts"))};
import { openStore } from ${JSON.stringify(join(import.meta.dir, "../store/store.ts"))};
const store = openStore(process.argv[1]);
const state = { store, trustDomain: "weft.local", now: Date.now, committed: () => {} };
const service = (name, port) => "apiVersion: weft.dev/v1\\nkind: Service\\nmetadata: { name: " +
  name + " }\\nspec: { ports: [{ port: " + port + " }] }\\n---\\n";
for (let n = 0; ; n++) {
  const port = 20000 + Math.floor(Math.random() * 40000);
  const text = Array.from({ length: 10 }, (_, i) => service("s" + i, port)).join("");
  const { revision } = apply(state, [{ name: "a", text }], { author: "test" });
  writeSync(1, revision + " " + port + "\\n");
}
`;

async function killedHalfway(path: string, delayMs: number): Promise<[number, number][]> {
  const child = Bun.spawn([process.execPath, "-e", CHILD, path], {
    stdout: "pipe",
    stderr: "inherit",
  });
  let text = "";
  const reader = child.stdout.getReader();
  for (let killing = false; ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    text += Buffer.from(value).toString();
    // From its first word on, so that a slow start does not make the test an empty one.
    if (!killing) setTimeout(() => child.kill("SIGKILL"), delayMs);
    killing = true;
  }
  await child.exited;
  const lines = text.split("\n").slice(0, -1);
  return lines.map((line) => line.split(" ").map(Number) as [number, number]);
}

test("kill -9 in the middle of applies: nothing acknowledged is lost, nothing is half there", async () => {
  const path = join(folder(), "weft.db");
  const acknowledged = new Map<number, number>();
  for (let round = 0; round < ROUNDS; round++) {
    for (const [number, port] of await killedHalfway(path, (round * 7) % 61)) {
      acknowledged.set(number, port);
    }
    const store = openStore(path);
    const numbers = listRevisions(store).map((revision) => revision.number);
    expect(numbers.length).toBe(lastRevision(store));
    expect(lastRevision(store)).toBeGreaterThanOrEqual(Math.max(...acknowledged.keys()));
    // All ten services of the newest revision or none: they share one port.
    const ports = allResources(store).map(({ resource }) => JSON.stringify(resource.spec));
    expect([ports.length, new Set(ports).size]).toEqual([10, 1]);
    store.close();
  }
  const store = openStore(path);
  for (const number of [...acknowledged.keys()].slice(-200)) {
    const [first] = setAt(store, number).values();
    const spec = { ports: [{ port: acknowledged.get(number) }] };
    expect(JSON.stringify(first?.resource.spec)).toBe(JSON.stringify(spec));
  }
  console.log(`${ROUNDS} kills, ${acknowledged.size} acknowledged revisions, 0 lost`);
  store.close();
}, 120_000);

function mounted(): string | undefined {
  const made = folder();
  const mount = Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", made], {
    stderr: "ignore",
  });
  return mount.exitCode === 0 && statfsSync(made).blocks < 1000 ? made : undefined;
}

test("a full disk: 507, nothing half applied, reads go on, and it heals without a restart", () => {
  const small = mounted();
  if (small === undefined) {
    console.log("skipped: mounting a small tmpfs needs root");
    return;
  }
  const store = openStore(join(small, "weft.db"));
  const state: ControlState = {
    ...{ store, trustDomain: "weft.local", now: () => 1, committed: () => {} },
  };
  const put = (port: number) => {
    const text = Array.from(
      { length: 20 },
      (_, i) =>
        `apiVersion: weft.dev/v1\nkind: Service\nmetadata: { name: s${i} }\n` +
        `spec: { ports: [{ port: ${port} }] }\n---\n`,
    ).join("");
    return apply(state, [{ name: "a", text }], { author: "test" });
  };
  put(20_000);
  // Leaves room for a page or two.
  const { bavail, bsize } = statfsSync(small);
  writeFileSync(join(small, "ballast"), Buffer.alloc(Math.max(0, bavail - 8) * bsize));
  let failure: unknown;
  let good = 20_000;
  for (let port = 20_001; failure === undefined && port < 20_200; port++) {
    try {
      put(port);
      good = port;
    } catch (error) {
      failure = error;
    }
  }
  expect(failure).toBeInstanceOf(Failure);
  expect(failure).toMatchObject({ status: 507, code: "disk_full" });
  const specs = allResources(store).map(({ resource }) => JSON.stringify(resource.spec));
  expect(new Set(specs)).toEqual(new Set([JSON.stringify({ ports: [{ port: good }] })]));
  expect(lastRevision(store)).toBe(good - 20_000 + 1);
  rmSync(join(small, "ballast"));
  expect(put(30_000).revision).toBe(good - 20_000 + 2);
  store.close();
  openStore(join(small, "weft.db")).close();
});
