import { expect, test } from "bun:test";
import { Failure } from "../../src/error.ts";
import type { Client } from "./client.ts";
import type { Terminal } from "./terminal.ts";
import { waitForRevision } from "./wait-revision.ts";

type State = readonly (readonly [state: string, revision: number])[];

/** A control plane whose proxies are as `states` says, one entry per look. */
function harness(states: readonly State[]) {
  let looks = 0;
  let now = 0;
  const client: Client = {
    url: "",
    get: async <T>() => {
      const at = states[Math.min(looks++, states.length - 1)] ?? [];
      const proxies = at.map(([state, revision]) => ({
        ...{ namespace: "default", service: "cart", state, revision },
        refused: [],
      }));
      return { proxies } as T;
    },
    post: async <T>() => ({}) as T,
    remove: async <T>() => ({}) as T,
    download: async () => new Uint8Array(),
  };
  const terminal: Terminal = {
    out: () => true,
    err: () => {},
    ...{ outWatched: false, errWatched: false, colours: false, columns: 80 },
    stdin: async () => "",
    now: () => now,
    sleep: async (ms) => {
      now += ms;
    },
  };
  const wait = (share: number) =>
    waitForRevision({ client, terminal, revision: 5, share, timeoutMs: 1_000 });
  return { wait, looks: () => looks };
}

test("waits until all living proxies have it", async () => {
  const { wait, looks } = harness([
    [
      ["up", 4],
      ["up", 5],
      ["down", 1],
    ],
    [
      ["up", 5],
      ["up", 6],
      ["down", 1],
    ],
  ]);
  expect(await wait(1)).toBe(0);
  expect(looks()).toBe(2);
});

test("a share is rounded up", async () => {
  const three: State = [
    ["up", 5],
    ["up", 5],
    ["up", 4],
  ];
  expect(await harness([three]).wait(0.6)).toBe(0);
  expect(harness([three]).wait(0.7)).rejects.toThrow("1 of 3 proxies");
});

test("no proxies, nothing to wait for", async () => {
  expect(await harness([[]]).wait(1)).toBe(0);
});

test("the time runs out with its own exit code", async () => {
  try {
    await harness([[["up", 1]]]).wait(1);
    throw new Error("did not time out");
  } catch (error) {
    expect(error).toBeInstanceOf(Failure);
    expect((error as Failure).exit).toBe(5);
  }
});
