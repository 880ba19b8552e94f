import { afterAll, expect, test } from "bun:test";
import type { ServiceSpec, TestPlane, TestWorkload } from "./mesh.fixture.ts";
import { caller, eventually, newPlane, rawServer, stopAll, talk } from "./servers.fixture.ts";

afterAll(stopAll);

/** An opaque service `db` at the mesh ports of these planes, and a port of `web` that leads there. */
function reach(
  plane: TestPlane,
  behind: readonly TestPlane[],
  policy: ServiceSpec["policy"] = {},
): { readonly web: TestWorkload; readonly port: number } {
  const endpoints = behind.map((other) => ({
    ...other.endpoint("db"),
    id: String(other.meshPort),
  }));
  const web = caller(plane, [{ service: "db", port: 80, protocol: "tcp", policy, endpoints }]);
  const service = { namespace: "default", service: "db" };
  const port = plane.plane.listenUpstream(web.local, service, "127.0.0.1", 0);
  return { web, port };
}

/** A plane whose `db` is the server at `port`. */
function db(port: number): TestPlane {
  const plane = newPlane();
  plane.workload("db", [{ servicePort: 80, host: "127.0.0.1", port, protocol: "tcp" }]);
  return plane;
}

const answering = () =>
  rawServer({
    open: (socket) => void socket.write("hello "),
    data: (socket, text) => void socket.write(text.toUpperCase()),
  });

test("an application that is away is not noticed: another instance gets every byte", async () => {
  const app = answering();
  const plane = db(app.port);
  const { web, port } = reach(plane, [db(1), plane], { balancer: "round_robin" });
  for (let i = 0; i < 10; i++) {
    // Half of them say that they are done before anything was reached.
    const { socket, heard } = talk(port, `call ${i}`);
    if (i % 2 === 0) socket.end();
    else setTimeout(() => socket.end(), 20);
    const { text, error } = await heard;
    expect(`${text}|${error}`).toBe(`hello CALL ${i}|`);
  }
  const metrics = plane.metrics.render();
  expect(metrics).toMatch(
    /weft_retries_total\{.*peer="default\/db".*reason="app_unreachable".*\} [1-9]/,
  );
  expect(metrics).not.toMatch(/weft_tcp_connections_total\{direction="outbound".*reason="[a-z_]+"/);
  expect(web.local.upstreams.destination(target(web)).budget.active).toBe(0);
});

function target(web: TestWorkload) {
  return web.snapshot.value!.services.get("default/db")!.ports.get(80)!.target;
}

test("when every instance is away the caller is reset, after the policy's attempts", async () => {
  const plane = newPlane();
  const gone = [db(1), db(1), db(1), db(1)];
  const { web, port } = reach(plane, gone);
  const heard = await talk(port, "hello").heard;
  expect(heard).toEqual({ text: "", ended: false, error: "ECONNRESET" });
  expect(plane.metrics.render()).toMatch(
    /weft_tcp_connections_total\{direction="outbound".*reason="app_unreachable".*\} 1/,
  );
  expect(gone.filter((one) => one.metrics.render().includes('app_unreachable"')).length).toBe(3);
  const destination = web.local.upstreams.destination(target(web));
  expect([destination.active, destination.budget.active]).toEqual([0, 0]);
});

test("an application that heard something and resets is not called twice", async () => {
  const app = rawServer({ data: (socket) => void socket.terminate() });
  const plane = db(app.port);
  const { port } = reach(plane, [plane, db(app.port), db(app.port)]);
  const heard = await talk(port, "transfer all the money").heard;
  expect(heard).toEqual({ text: "", ended: true, error: "" });
  expect(app.accepted).toBe(1);
});

test("a reset after bytes is a reset for the caller", async () => {
  const app = rawServer({
    data(socket) {
      socket.write("part");
      setTimeout(() => socket.terminate(), 20);
    },
  });
  const plane = db(app.port);
  const { port } = reach(plane, [plane, plane]);
  const heard = await talk(port, "go").heard;
  expect(heard).toEqual({ text: "part", ended: false, error: "ECONNRESET" });
  expect(app.accepted).toBe(1);
});

test("a caller's reset reaches the application", async () => {
  let closed = "";
  const app = rawServer({ end: () => (closed = "end") });
  const plane = db(app.port);
  const { port } = reach(plane, [plane]);
  const { socket } = talk(port, "go");
  expect(await eventually(() => app.open === 1)).toBe(true);
  await Bun.sleep(20);
  socket.resetAndDestroy();
  expect(await eventually(() => app.open === 0)).toBe(true);
  expect(closed).toBe("");
  expect(await eventually(() => plane.plane.active === 0)).toBe(true);
});

test("what was sent beyond the replay limit is not sent twice", async () => {
  const plane = newPlane();
  const { port } = reach(plane, [db(1), db(1)]);
  const { socket, heard } = talk(port, "x".repeat(200_000));
  socket.resume();
  expect((await heard).error).toBe("ECONNRESET");
});
