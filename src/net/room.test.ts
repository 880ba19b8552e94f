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
  for (let n = 0; n < callers; n++) if (room.enter("a") !== undefined) inside++;
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
  while (room.enter("a") !== undefined) {
    expect(claim(room).outcome).toBe("granted");
    pairs++;
  }
  expect(pairs).toBe(43);
});

test("who waits is served as others leave, or refused a few at a time", async () => {
  const room = new Room(20);
  const caller = room.enter("b")!;
  expect(enter(room, 100)).toBe(11);
  const claims = Array.from({ length: 12 }, () => claim(room));
  const count = (outcome: string) => claims.filter((one) => one.outcome === outcome).length;
  expect([count("granted"), count("waiting")]).toEqual([8, 4]);
  room.release();
  await Bun.sleep(0);
  expect([count("granted"), count("waiting")]).toEqual([9, 3]);
  expect(room.enter("b")).toBeUndefined();
  for (let refused = 1; refused < 3; refused++) {
    while (count("refused") < refused) await Bun.sleep(5);
    expect(count("waiting")).toBe(3 - refused);
  }
  room.leave(caller);
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

test("of a shared room one source leaves an eighth, of which another leaves some again", () => {
  const room = new Room(1000, true);
  const enter = (name: string) => {
    let inside = 0;
    while (room.enter(name) !== undefined) inside++;
    return inside;
  };
  expect([enter("greedy"), enter("greedy, too")]).toEqual([875, 93]);
});

test("requests count as their source's, and wait for nobody when it has too much", () => {
  const room = new Room(80, true);
  const source = room.enter("greedy")!;
  for (let n = 1; n < 40; n++) room.enter("greedy");
  let requests = 0;
  for (; room.begin(source); requests++) claim(room);
  expect([source.held, requests]).toEqual([70, 30]);
  expect(room.tight(source)).toBe(true);
  const other = room.enter("other")!;
  expect([room.begin(other), claim(room).outcome]).toEqual([true, "granted"]);
  expect(room.crowded).toBe(false);
  room.end(source);
  room.release();
  room.leave(source);
  expect(room.tight(source)).toBe(false);
});

test("a caller counts as its address until it has proved who it is", () => {
  const room = new Room(80, true);
  const callers = Array.from({ length: 60 }, () => ({ source: room.enter("10.0.0.1") }));
  for (const caller of callers) expect(room.identify(caller, "default/web")).toBe(true);
  expect(callers[0]!.source).toMatchObject({ name: "default/web", held: 60 });
  const more = Array.from({ length: 10 }, () => ({ source: room.enter("10.0.0.1") }));
  expect(more.map((caller) => room.identify(caller, "default/web")).includes(false)).toBe(false);
  const last = { source: room.enter("10.0.0.1") };
  expect(room.identify(last, "default/web")).toBe(false);
  expect(last.source).toMatchObject({ name: "10.0.0.1", held: 1 });
  expect(room.identify(last, "default/cart")).toBe(true);
});
