import { expect, test } from "bun:test";
import { Admission } from "./admission.ts";

test("connections per source: one address leaves places for others, and gets its own back", () => {
  const door = new Admission(16);
  const enter = (name: string) =>
    Array.from({ length: 16 }, () => door.enter(name)).filter((source) => source !== undefined);
  const crowd = enter("10.0.0.1");
  expect([crowd.length, enter("10.0.0.2").length, door.open]).toEqual([14, 2, 16]);
  expect(door.refused).toBe(2 + 14);
  for (const source of crowd) door.leave(source);
  expect(door.open).toBe(2);
  expect(enter("10.0.0.1").length).toBe(13);
});
