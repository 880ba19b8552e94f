import { describe, expect, test } from "bun:test";
import { Room } from "../net/room.ts";
import type { TrafficPolicyDocument } from "../snapshot/document.ts";
import type { Target } from "../snapshot/snapshot.ts";
import { pickLeastRequest, pickRandom } from "./balance.ts";
import { RetryBudget } from "./budget.ts";
import { Destination, type DestinationMeters } from "./destination.ts";
import { Endpoint } from "./endpoint.ts";

const NO_METERS: DestinationMeters = {
  http: () => {
    throw new Error("nothing is measured here");
  },
  tcp: () => {
    throw new Error("nothing is measured here");
  },
};

function target(policy: Partial<TrafficPolicyDocument>): Target {
  return {
    ...{ key: "default/app:80", namespace: "default", service: "app", port: 80, subset: undefined },
    ...{ protocol: "http", sni: "", endpoints: [] },
    policy: {
      ...{ balancer: "least_request", connectTimeoutMs: 1, requestTimeoutMs: 0 },
      ...{ perTryTimeoutMs: 0, idleTimeoutMs: 0, maxConnections: 2, maxPending: 1 },
      retries: {
        ...{ attempts: 2, on: [], codes: [], backoffMs: 0 },
        ...{ budgetPercent: 20, budgetMinConcurrency: 3 },
      },
      ...policy,
    },
  };
}

let clock = 0;
const endpoint = (port: number, weight = 1) =>
  new Endpoint({ host: "127.0.0.1", port, weight }, () => clock, new Room(100));

function seeded(): () => number {
  let state = 1;
  return () => {
    state = (state * 1664525 + 1013904223) >>> 0;
    return state / 0x100000000;
  };
}

describe("balancing", () => {
  test("the less busy of two, for its weight", () => {
    const a = { active: 5, weight: 1 };
    const b = { active: 6, weight: 2 };
    const random = seeded();
    for (let i = 0; i < 20; i++) expect(pickLeastRequest([a, b], random)).toBe(b);
    expect(pickLeastRequest([], random)).toBeUndefined();
  });

  test("random follows the weights", () => {
    const random = seeded();
    const candidates = [1, 3].map((weight) => ({ active: 0, weight }));
    let heavy = 0;
    for (let i = 0; i < 4000; i++) if (pickRandom(candidates, random)?.weight === 3) heavy++;
    expect(Math.abs(heavy - 3000)).toBeLessThan(150);
  });

  test("round robin is exact to the weights", () => {
    const d = new Destination(target({ balancer: "round_robin" }), NO_METERS);
    const [a, b] = [endpoint(1, 3), endpoint(2, 1)];
    d.update(d.target, [a, b], []);
    const picks = Array.from({ length: 8 }, () => d.pick(0, Math.random, undefined)?.port);
    expect(picks.filter((port) => port === 1)).toHaveLength(6);
  });

  test("failed endpoints and suspects are last resorts", () => {
    const d = new Destination(target({}), NO_METERS);
    const [a, b, suspect] = [endpoint(1), endpoint(2), endpoint(3)];
    d.update(d.target, [a, b], [suspect]);
    expect(d.pick(0, Math.random, [a])).toBe(b);
    expect(d.pick(0, Math.random, [a, b])).toBe(suspect);
    expect(d.pick(0, Math.random, [a, b, suspect])).toBe(a);
    clock = 100;
    a.avoid();
    for (let i = 0; i < 10; i++) expect(d.pick(200, Math.random, undefined)).toBe(b);
    expect(a.avoided(1200)).toBe(false);
    d.update(d.target, [], []);
    expect(d.pick(0, Math.random, undefined)).toBeUndefined();
  });
});

test("turns: two run, one waits, the next is refused; a leaver lets the waiter in", () => {
  const d = new Destination(target({}), NO_METERS);
  let turns = 0;
  const waiter = () => ({ onTurn: () => void turns++ });
  const [third, fourth] = [waiter(), waiter()];
  expect([d.enter(waiter()), d.enter(waiter()), d.enter(third)]).toEqual(["go", "go", "wait"]);
  expect(d.enter(fourth)).toBe("full");
  d.leave();
  expect(turns).toBe(1);
  expect(d.active).toBe(2);
  expect(d.enter(fourth)).toBe("wait");
  d.withdraw(fourth);
  d.leave();
  d.leave();
  expect([turns, d.active]).toEqual([1, 0]);
});

test("the retry budget is a share of first attempts under way, with a floor", () => {
  const budget = new RetryBudget();
  const take = (active: number) => budget.take(active, 20, 3);
  expect([take(1), take(1), take(1), take(1)]).toEqual([true, true, true, false]);
  // 20 % of the 20 that are no retries.
  expect([take(22), take(23)]).toEqual([false, true]);
  expect(take(20)).toBe(false);
  budget.release();
  expect(budget.active).toBe(3);
});
