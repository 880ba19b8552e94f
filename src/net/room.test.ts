import { expect, test } from "bun:test";
import { type Claim, Room } from "./room.ts";

function claim(room: Room): Claim & { outcome: string } {
  const made = {
    outcome: "waiting",
    reuse: () => false,
    granted() {
      made.outcome = "granted";
    },
    refused() {
      made.outcome = "refused";
    },
  };
  room.claim(made);
  return made;
}

function enter(room: Room, callers: number): number {
  let inside = 0;
  for (let n = 0; n < callers; n++) if (room.enter()) inside++;
  return inside;
}

test("callers at rest take one descriptor each, but for a spare", () => {
  const room = new Room(9966);
  expect(enter(room, 20_000)).toBe(9654);
  expect(room.refused).toBe(20_000 - 9654);
  expect(enter(new Room(94), 1000)).toBe(86);
  expect(enter(new Room(Number.POSITIVE_INFINITY), 1000)).toBe(1000);
});

test("whoever has a connection in use counts twice", () => {
  const room = new Room(94);
  let pairs = 0;
  while (room.enter()) {
    expect(claim(room).outcome).toBe("granted");
    pairs++;
  }
  expect(pairs).toBe(43);
});

test("who waits is served as others leave, or refused a few at a time", async () => {
  const room = new Room(20);
  expect(enter(room, 100)).toBe(12);
  const claims = Array.from({ length: 12 }, () => claim(room));
  const count = (outcome: string) => claims.filter((one) => one.outcome === outcome).length;
  expect([count("granted"), count("waiting")]).toEqual([8, 4]);
  room.release();
  await Bun.sleep(0);
  expect([count("granted"), count("waiting")]).toEqual([9, 3]);
  expect(room.enter()).toBe(false);
  for (let refused = 1; refused < 3; refused++) {
    while (count("refused") < refused) await Bun.sleep(5);
    expect(count("waiting")).toBe(3 - refused);
  }
  room.leave();
  await Bun.sleep(0);
  expect([count("granted"), count("refused"), count("waiting")]).toEqual([10, 2, 0]);
});

test("it is crowded for a few seconds after somebody was turned away", () => {
  const room = new Room(16);
  enter(room, 8);
  room.tick();
  expect(room.crowded).toBe(false);
  enter(room, 1);
  expect(room.crowded).toBe(true);
  let ticks = 0;
  for (room.tick(); room.crowded; room.tick()) ticks++;
  expect(ticks).toBe(5);
});
