import { expect, test } from "bun:test";
import { Allowance } from "./allowance.ts";

test("so many per stretch and sender, and a clock set back begins anew", () => {
  const allowance = new Allowance(2, 100);
  const take = (at: number, sender = "a") => allowance.take(sender, at);
  expect([take(0), take(1), take(2)]).toEqual([true, true, false]);
  expect(take(2, "b")).toBe(true);
  expect([take(99), take(100), take(101), take(102)]).toEqual([false, true, true, false]);
  expect(take(50)).toBe(true);
});
