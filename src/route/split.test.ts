import { expect, test } from "bun:test";
import fc from "fast-check";
import { reduceWeights, splitCounters, stepSplit } from "./split.ts";

function picks(weights: readonly number[], count: number): number[] {
  const counters = splitCounters(weights);
  return Array.from({ length: count }, () => stepSplit(weights, counters));
}

test("spreads the picks instead of sending runs", () => {
  expect(picks([5, 1, 1], 7)).toEqual([0, 0, 1, 0, 2, 0, 0]);
});

test("one hundred requests at 90 to 10 are exactly 90 and 10", () => {
  const chosen = picks(reduceWeights([90, 10]), 100);
  expect(chosen.filter((i) => i === 1)).toHaveLength(10);
});

test("weights of zero are never chosen", () => {
  expect(picks([0, 2, 0], 4)).toEqual([1, 1, 1, 1]);
  expect(picks([0, 0], 2)).toEqual([-1, -1]);
  expect(picks([], 1)).toEqual([-1]);
});

test("any window of one period is exact", () => {
  const weights = fc.array(fc.nat({ max: 12 }), { minLength: 1, maxLength: 5 });
  fc.assert(
    fc.property(weights, fc.nat({ max: 40 }), (given, skip) => {
      const period = given.reduce((sum, weight) => sum + weight, 0);
      const window = picks(given, skip + period).slice(skip);
      if (period === 0) return;
      expect(given.map((_, i) => window.filter((pick) => pick === i).length)).toEqual(given);
    }),
  );
});

test("reducing keeps proportions", () => {
  expect(reduceWeights([900, 100])).toEqual([9, 1]);
  expect(reduceWeights([0, 50])).toEqual([0, 1]);
  expect(reduceWeights([0, 0])).toEqual([0, 0]);
  expect(reduceWeights([7, 3])).toEqual([7, 3]);
});
