/** How tunnels end when one side goes at a bad moment: nothing is left, nothing cut passes as whole. */
import { afterAll, expect, test } from "bun:test";
import { connect } from "node:net";
import { snapshotOf, type TestPlane } from "./mesh.fixture.ts";
import { caller, eventually, newPlane, rawServer, stopAll, talk } from "./servers.fixture.ts";

afterAll(stopAll);

interface Reached {
  /** The callers' proxy, and the application's. */
  readonly near: TestPlane;
  readonly far: TestPlane;
  readonly port: number;
}

/** A port that leads to the application at `appPort` through two proxies. */
function reach(appPort: number, detect?: true): Reached {
  const near = newPlane();
  const far = newPlane();
  const declared = detect === undefined ? ({ protocol: "tcp" } as const) : {};
  far.workload("app", [{ servicePort: 80, host: "127.0.0.1", port: appPort, ...declared }]);
  const kind = detect === undefined ? declared : { detect };
  const web = caller(near, [
    { service: "app", port: 80, ...kind, endpoints: [far.endpoint("app")] },
  ]);
  const service = { namespace: "default", service: "app" };
  return { near, far, port: near.plane.listenUpstream(web.local, service, "127.0.0.1", 0) };
}

test("an application that takes nothing and resets ends its caller, however much is under way", async () => {
  const app = rawServer({
    open(socket) {
      socket.pause();
      setTimeout(() => socket.terminate(), 200);
    },
  });
  const { near, far, port } = reach(app.port);
  // It reads no end, and goes on sending.
  const socket = connect({ host: "127.0.0.1", port, allowHalfOpen: true });
  let closed = false;
  socket.on("error", () => {});
  socket.on("close", () => {
    closed = true;
  });
  socket.write(Buffer.alloc(24 * 1024 * 1024));
  expect(await eventually(() => closed)).toBe(true);
  expect(await eventually(() => near.plane.active + far.plane.active === 0)).toBe(true);
});

test("what a drain cuts off is no orderly end for the application", async () => {
  let heard = "";
  const app = rawServer({
    data: (_, text) => {
      heard += text;
    },
    end(socket) {
      heard += " and an end";
      socket.end();
    },
  });
  const { near, port } = reach(app.port);
  const { socket } = talk(port, "half");
  expect(await eventually(() => heard === "half")).toBe(true);
  await near.plane.drain(0, 50);
  expect(await eventually(() => app.open === 0)).toBe(true);
  expect(heard).toBe("half");
  socket.destroy();
});

test.each([1, 2, 4, 5])("a greeting of %d bytes is a greeting", async (size) => {
  const app = rawServer({
    open(socket) {
      socket.setNoDelay(true);
      socket.write("+".repeat(size));
      setTimeout(() => socket.end("."), 100);
    },
  });
  const { port } = reach(app.port, true);
  const { text, error } = await talk(port, "").heard;
  expect([text, error]).toEqual([`${"+".repeat(size)}.`, ""]);
});

test("bytes for a service that is still asked for wait with their sender", async () => {
  const app = rawServer({});
  const far = newPlane();
  far.workload("app", [{ servicePort: 80, host: "127.0.0.1", port: app.port, protocol: "tcp" }]);
  const near = newPlane();
  const lazy = near.workload("lazy");
  // A proxy that accepts and shakes no hands.
  const silent = rawServer({});
  const endpoint = { ...far.endpoint("app"), meshPort: silent.port };
  near.onAccess = () => {
    const spec = { service: "app", port: 80, protocol: "tcp", endpoints: [endpoint] } as const;
    setTimeout(() => lazy.snapshot.set(snapshotOf([spec], {}, "lazy")), 10);
    return true;
  };
  const service = { namespace: "default", service: "app" };
  const port = near.plane.listenUpstream(lazy.local, service, "127.0.0.1", 0);
  const socket = connect({ host: "127.0.0.1", port });
  socket.on("error", () => {});
  const size = 64 * 1024 * 1024;
  let taken = false;
  socket.write(Buffer.alloc(size), () => {
    taken = true;
  });
  await eventually(() => silent.accepted > 0);
  await Bun.sleep(500);
  expect(taken).toBe(false);
  socket.destroy();
});
