/**
 * WebSockets through two proxies, between a client and a server that others wrote. WEFT_LONG=1:
 * 100,000 frames both ways, otherwise 5,000.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import { ask, run, type Sidecar, TestMesh, takePorts, until } from "../harness/mesh.ts";

const FRAMES = process.env["WEFT_LONG"] === "1" ? 100_000 : 5_000;
const PROGRAM = ["node", join(import.meta.dir, "../harness/websocket.mjs")];

const PYTHON = ["python3", join(import.meta.dir, "../harness/websocket.py")];
/** Not everybody has it: `python3 -m pip install websockets`. */
const python = (await run(["python3", "-c", "import websockets.asyncio.server"])).code === 0;
const pythonUpstream = takePorts(1);

let mesh: TestMesh;
let web: Sidecar;

beforeAll(async () => {
  mesh = await TestMesh.start();
  const port = takePorts(1);
  const server = mesh.spawn([...PROGRAM, "server", String(port)]);
  await until("the server listens", () => server.output().includes("ready"));
  const app = [`80=${port}/http`];
  if (python) {
    const other = takePorts(1);
    const talker = mesh.spawn([...PYTHON, "server", String(other)]);
    await until("python's server listens", () => talker.output().includes("ready"));
    app.push(`81=${other}/http`);
  }
  await mesh.sidecar({ service: "chat", app });
  const upstream = python ? [`chat/81:${pythonUpstream}`] : [];
  web = await mesh.sidecar({ service: "web", upstream });
  await until("chat is known", async () => (await ask(web.outbound, "chat:80")).ok);
}, 60_000);

afterAll(() => mesh?.stop());

function client(role: string, ...more: readonly string[]) {
  return run([...PROGRAM, role, String(web.outboundPort), "chat:80", ...more]);
}

test("each frame comes back, in order and whole", async () => {
  const started = performance.now();
  const result = await client("client", String(FRAMES));
  expect(result).toMatchObject({ code: 0, stdout: `{"seen":${FRAMES},"code":1000}\n` });
  console.log(
    `${FRAMES} frames both ways in ${((performance.now() - started) / 1000).toFixed(1)} s`,
  );
}, 120_000);

test("a refused upgrade is passed on, and does not disturb others", async () => {
  for (let i = 0; i < 5; i++) {
    expect((await client("refused")).code).toBe(0);
    expect(await (await ask(web.outbound, "chat:80", "/page")).text()).toBe("plain /page");
  }
  expect((await client("client", "100")).code).toBe(0);
}, 60_000);

test.skipIf(!python)(
  "python's websockets: frames, a large one, pieces, a ping, a refusal",
  async () => {
    const port = String(pythonUpstream);
    expect(await run([...PYTHON, "client", port, String(FRAMES)])).toMatchObject({ code: 0 });
  },
  120_000,
);
