import { expect, test } from "bun:test";
import { openFilesMax } from "../src/std/open-files.ts";
import { apiCallersMax, proxyRoom } from "./descriptors.ts";

test("callers and what they need fit under the limit", () => {
  for (const limit of [256, 1024, 524_288]) {
    expect(2 * proxyRoom(1, limit)).toBeLessThanOrEqual(limit - 64);
    expect(apiCallersMax(limit)).toBeLessThanOrEqual(limit - 64);
  }
  expect(proxyRoom(1, 256)).toBe(94);
  expect(proxyRoom(100, 256)).toBe(16);
  expect(proxyRoom(1, Number.POSITIVE_INFINITY)).toBe(Number.POSITIVE_INFINITY);
});

test("the limit is the process's own", () => {
  const shell = Bun.spawnSync(["sh", "-c", "ulimit -n"]).stdout.toString().trim();
  expect(String(openFilesMax())).toBe(shell === "unlimited" ? "Infinity" : shell);
});
