import { expect, test } from "bun:test";
import { pendingMax } from "./memory.ts";

test("an eighth of the memory, within reason", () => {
  expect(pendingMax(160e6)).toBe(20e6);
  expect(pendingMax(64e9)).toBe(256 * 1024 * 1024);
  expect(pendingMax(0)).toBe(256 * 1024 * 1024);
  expect(pendingMax()).toBeGreaterThan(0);
});
