import { expect, test } from "bun:test";
import { copiesAreSlow, preparedEnvironment } from "./second-start.ts";

const THRESHOLD = "glibc.cpu.x86_rep_movsb_threshold";

function prepared(environ: string, quickCopies: boolean, memory?: number): string | undefined {
  const env = preparedEnvironment(Buffer.from(environ, "latin1"), { quickCopies, memory });
  return env?.toString("latin1");
}

const tuned = (environ: string) => prepared(environ, true);

test("the tunable joins the environment, whose bytes stay as they were", () => {
  expect(tuned("A=1\0B=\xff\0")).toBe(`A=1\0B=\xff\0GLIBC_TUNABLES=${THRESHOLD}=0x40000000\0`);
});

test("other tunables are kept", () => {
  expect(tuned("GLIBC_TUNABLES=glibc.malloc.check=3\0A=1\0")).toBe(
    `GLIBC_TUNABLES=glibc.malloc.check=3:${THRESHOLD}=0x40000000\0A=1\0`,
  );
  expect(tuned("GLIBC_TUNABLES=\0")).toBe(`GLIBC_TUNABLES=${THRESHOLD}=0x40000000\0`);
});

test("a threshold that is set is left alone, so nothing starts a third time", () => {
  expect(tuned(`GLIBC_TUNABLES=${THRESHOLD}=4096\0`)).toBeUndefined();
  expect(tuned(tuned("A=1\0")!)).toBeUndefined();
});

test("a heap is sized by the memory there is, unless somebody says otherwise", () => {
  const once = prepared("A=1\0", false, 200_000_000);
  expect(once).toBe("A=1\0BUN_JSC_forceRAMSize=200000000\0");
  expect(prepared(once!, false, 200_000_000)).toBeUndefined();
  expect(prepared("BUN_JSC_forceRAMSize=1\0", false, 200_000_000)).toBeUndefined();
  expect(prepared("A=1\0", true, 5)).toContain("rep_movsb_threshold=0x40000000\0BUN_JSC_force");
  expect(prepared("A=1\0", false)).toBeUndefined();
});

test("copies count as slow by the clock, not by the name of the CPU", () => {
  // Eight copies a place: the near ones first, then the far ones; two readings for each.
  const clockOf = (near: number, far: number) => {
    let now = 0;
    let readings = 0;
    return () => {
      if (readings++ % 2 === 1) now += readings <= 16 ? near : far;
      return now;
    };
  };
  expect(copiesAreSlow(clockOf(7000, 440))).toBe(true);
  expect(copiesAreSlow(clockOf(500, 440))).toBe(false);
});
