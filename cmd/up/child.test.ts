import { afterEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Child } from "./child.ts";
import { killLeftovers, noteChildren, startTime } from "./leftovers.ts";
import { waitFor } from "./surroundings.ts";

const children: Child[] = [];

afterEach(() => {
  for (const child of children.splice(0)) child.kill();
});

function start(script: string) {
  const lines: string[] = [];
  const ends: string[] = [];
  const child = new Child(
    { name: "app", command: ["sh", "-c", script], env: { PATH: "/usr/bin:/bin" }, cwd: "/" },
    {
      line: (_, text) => lines.push(text),
      ended: (_, how, again) => ends.push(again === undefined ? how : `${how}, again`),
      changed: () => {},
    },
    Date.now,
  );
  children.push(child);
  child.start();
  return { child, lines, ends };
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 5_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error("not in time");
    await Bun.sleep(5);
  }
}

test("relays whole lines of both streams, the last one without a newline too", async () => {
  const { child, lines } = start("echo one; printf two; echo three >&2");
  await until(() => lines.length === 3);
  expect(lines.sort()).toEqual(["one", "three", "two"]);
  await until(() => child.finished);
});

test("an end before it was ready is fatal, told once, and not repaired", async () => {
  const { child, ends } = start("exit 3");
  expect(await child.early).toBe("exit 3");
  expect(ends).toEqual(["exit 3"]);
  expect(child.finished).toBe(false);
});

test("a crash later is repaired by a restart", async () => {
  const { child, lines, ends } = start("echo up; sleep 60");
  await until(() => lines.length === 1);
  child.settle();
  const first = child.pid!;
  process.kill(first, "SIGKILL");
  await until(() => lines.length === 2);
  expect(ends).toEqual(["SIGKILL, again"]);
  expect(child.pid).not.toBe(first);
});

test("a command that does not exist ends at once", async () => {
  const child = new Child(
    { name: "x", command: ["/nowhere/x"], env: {}, cwd: "/" },
    { line: () => {}, ended: () => {}, changed: () => {} },
    Date.now,
  );
  child.start();
  expect(await child.early).toContain("could not be started");
  const never = () => Promise.reject(new Error("not yet"));
  await expect(waitFor("x", 1000, child, never)).rejects.toThrow(
    /^x ended before it was ready: could not be started: /,
  );
});

test("stopping waits for the end, and kills who does not listen", async () => {
  const { child, lines, ends } = start("trap '' TERM; echo up; while :; do sleep 0.05; done");
  await until(() => lines.length === 1);
  const pid = child.pid!;
  await child.stop(200);
  expect(startTime(pid)).toBeUndefined();
  expect(ends).toEqual([]);
});

test("what a killed run left behind is ended by the next, nothing else", async () => {
  const folder = mkdtempSync(join(tmpdir(), "weft-up-"));
  try {
    const { child, lines } = start("echo up; sleep 60");
    await until(() => lines.length === 1);
    noteChildren(folder, [child.pid!]);
    expect(killLeftovers(folder)).toBe(1);
    expect(killLeftovers(folder)).toBe(0);
    await Bun.write(
      join(folder, "children.json"),
      JSON.stringify({ children: [{ pid: process.pid, started: "1" }] }),
    );
    expect(killLeftovers(folder)).toBe(0);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
