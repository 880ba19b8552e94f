import { afterAll, expect, test } from "bun:test";
import { callbackErrors } from "../net/boundary.ts";
import { caller, eventually, newPlane, rawServer, stopAll, talk } from "./servers.fixture.ts";

afterAll(stopAll);

/** A small generator with a seed, so that a failure can be seen again. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

const GREETING = "220 hello\n";
/** What callers say; none of it is a whole request line. */
const WORDS = ["\x16\x03\x01hello", "GET /a b", "GET ", "*1\r\n$4\r\nPING\r\n", "QUIT\r\n", "P"];

/** How the application treats a connection. */
type Manner = "greets" | "greets late" | "listens" | "resets" | "ends" | "away";

test.each<Manner>(["greets", "greets late", "listens", "resets", "ends", "away"])(
  "an application that %s: every byte arrives once and in order, nothing is left",
  async (manner) => {
    const random = seeded(manner.length);
    const app = rawServer({
      open(socket) {
        if (manner === "greets") socket.write(GREETING);
        if (manner === "greets late") setTimeout(() => socket.write(GREETING), 30 * random());
        if (manner === "resets") socket.terminate();
        if (manner === "ends") socket.end();
      },
      data: (socket, text) => void socket.write(Buffer.from(text, "latin1")),
    });
    const errors = () => [...callbackErrors().values()].reduce((a, b) => a + b, 0);
    const errorsBefore = errors();
    const plane = newPlane();
    const port = manner === "away" ? 1 : app.port;
    plane.workload("app", [{ servicePort: 80, host: "127.0.0.1", port }]);
    const endpoints = [plane.endpoint("app"), { ...plane.endpoint("app"), id: "2" }];
    const web = caller(plane, [{ service: "app", port: 80, detect: true, endpoints }]);
    const service = { namespace: "default", service: "app" };
    const listening = plane.plane.listenUpstream(web.local, service, "127.0.0.1", 0);

    const one = async () => {
      const { socket, heard } = talk(listening, "");
      socket.setNoDelay(true);
      const said = WORDS[Math.floor(random() * WORDS.length)]! + "x".repeat(random() * 50);
      const aborting = random() < 0.2;
      for (let at = 0; at < said.length && !socket.destroyed; ) {
        const size = 1 + Math.floor(random() * 12);
        socket.write(said.slice(at, at + size), "latin1");
        at += size;
        if (random() < 0.5) await Bun.sleep(6 * random());
        if (aborting && random() < 0.3) socket.resetAndDestroy();
      }
      socket.end();
      const { text, ended } = await heard;
      const greeted = text.includes(GREETING);
      const echoed = text.replace(GREETING, "");
      expect(said.startsWith(echoed)).toBe(true);
      if (manner === "resets" || manner === "ends" || manner === "away" || aborting) return;
      expect([echoed, ended]).toEqual([said, true]);
      // One that greets late may hear the caller's end first.
      if (manner !== "greets late") expect(greeted).toBe(manner === "greets");
    };
    let left = 150;
    const callers = async () => {
      while (left-- > 0) await one();
    };
    await Promise.all(Array.from({ length: 20 }, callers));

    expect(await eventually(() => plane.plane.active === 0 && app.open === 0)).toBe(true);
    const target = web.snapshot.value!.services.get("default/app")!.ports.get(80)!.target;
    const destination = web.local.upstreams.destination(target);
    expect([destination.active, destination.budget.active]).toEqual([0, 0]);
    for (const endpoint of destination.endpoints()) expect(endpoint.active).toBe(0);
    expect(plane.metrics.render()).not.toMatch(/weft_connections_active\{.*\} [1-9]/);
    expect(errors()).toBe(errorsBefore);
  },
  20_000,
);
