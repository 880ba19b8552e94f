/** The command line in scripts and by hand: what is misspelt, piped, watched or repeated. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { run, TestMesh, until, WEFT } from "../harness/mesh.ts";

let mesh: TestMesh;
const CART = `apiVersion: weft.dev/v1
kind: Service
metadata: { name: cart }
spec: { ports: [{ port: 8080, protocol: http }] }
`;

beforeAll(async () => {
  mesh = await TestMesh.start();
  await mesh.apply(CART);
}, 60_000);

afterAll(async () => {
  await mesh?.stop();
});

test.each([
  ["an unknown verb asks back", ["aply"], 2, /apply/],
  ["help for an unknown verb", ["help", "aply"], 2, /aply[\s\S]*apply/],
  ["an unknown verb of token", ["token", "lst"], 2, /"lst"[\s\S]*list/],
  ["a service without its kind, to wait for", ["wait", "cart"], 2, /weft wait service\/cart/],
  ["a service without its kind, to show", ["get", "cart"], 2, /weft get service\/cart/],
  ["a host check of something else", ["healthcheck", "cart"], 2, /proxy.*controlplane/],
] as const)("%s", async (_, args, code, says) => {
  const result = await run([WEFT, ...args], { env: { NO_COLOR: "1", WEFT_DATA: mesh.data } });
  expect(result.stderr).toMatch(says);
  expect(result.stderr.trim().split("\n").length).toBeLessThanOrEqual(3);
  expect(result.code).toBe(code);
});

test("nothing to apply is a mistake, above all with --prune", async () => {
  const file = join(mesh.folder, "empty.yaml");
  writeFileSync(file, "# generated\n---\n");
  for (const args of [[], ["--prune"]]) {
    const result = await mesh.weft("apply", "-f", file, ...args);
    expect(result.stderr).toMatch(/no document/);
    expect(result.code).toBe(3);
  }
  expect((await mesh.weft("get", "-o", "name")).stdout).toContain("Service/default/cart");
});

test("delete and rollback can be tried first", async () => {
  for (const args of [["delete", "service/cart"]]) {
    const result = await mesh.weft(...args, "--dry-run");
    expect(result.stdout).toContain("Service/default/cart deleted");
    expect(result.stderr).toContain("nothing was changed");
    expect(result.code).toBe(0);
  }
  await mesh.apply(CART.replace("8080", "8081"));
  const back = await mesh.weft("rollback", "1", "--dry-run");
  expect(back.stdout).toContain("Service/default/cart changed");
  expect((await mesh.weft("get", "service/cart", "-o", "yaml")).stdout).toContain("8081");
});

test("which ports take plaintext is listed, and warned of", async () => {
  await mesh.apply(`${CART}---
apiVersion: weft.dev/v1
kind: PeerAuth
metadata: { name: old-callers }
spec: { target: { service: cart, port: 8080 }, mtls: { mode: PERMISSIVE } }
`);
  const wide = (await mesh.weft("get", "services", "-o", "wide")).stdout;
  expect(wide).toMatch(/MTLS[\s\S]*cart .*PERMISSIVE/);
  expect((await mesh.weft("get", "pa")).stdout).toContain("PERMISSIVE for default/cart:8080");
  const warned = await mesh.weft("check", "-o", "json");
  expect(warned.stdout).toContain("default/cart:8080 by PeerAuth/default/old-callers");
  expect(JSON.parse(warned.stdout).success).toBe(true);
  expect((await mesh.weft("delete", "service/cart")).stderr).toContain("PeerAuth/default/old");
  expect((await mesh.weft("delete", "peerauth", "old-callers")).code).toBe(0);
  expect((await mesh.weft("check")).stdout).toContain("√ are reached by mutual TLS only");
  expect((await mesh.weft("get", "services", "-o", "wide")).stdout).toMatch(/cart .*STRICT/);
});

test("a backup does not replace another unless told to", async () => {
  const file = join(mesh.folder, "mesh.backup");
  expect((await mesh.weft("backup", file)).code).toBe(0);
  const before = readFileSync(file);
  const again = await mesh.weft("backup", file);
  expect(again.stderr).toMatch(/exists[\s\S]*--force/);
  expect(again.code).toBe(1);
  expect(readFileSync(file).equals(before)).toBe(true);
  await mesh.weft("token", "create");
  expect((await mesh.weft("backup", file, "--force")).code).toBe(0);
  expect(readFileSync(file).equals(before)).toBe(false);
});

test("a proxy that is forgotten is gone, and may join again while its token is good", async () => {
  const sidecar = await mesh.sidecar({ service: "cart", app: ["8080"], args: ["--health=none"] });
  const instances = async () => (await mesh.weft("status", "-o", "name")).stdout.trim();
  const first = await until("it is in the status", instances);
  const [instance = ""] = /[a-z2-7]{10}$/.exec(first) ?? [];
  const result = await mesh.weft("forget", instance);
  expect([result.code, result.stdout]).toEqual([0, `${instance} forgotten\n`]);
  const again = await until("it joined again", async () => {
    const now = await instances();
    return now !== "" && now !== first && now;
  });
  expect(again).not.toContain(instance);
  sidecar.kill("SIGTERM");
  await sidecar.exited;
  expect((await mesh.weft("forget", instance)).stderr).toMatch(/no instance/);
}, 30_000);

test("a watch ends when its reader leaves", async () => {
  const child = mesh.spawn(["bash", "-c", `"${WEFT}" get -w | head -1`], {
    WEFT_DATA: mesh.data,
    NO_COLOR: "1",
  });
  await until("the first line", () => child.output() !== "");
  // The news that finds nobody.
  await mesh.apply(CART.replace("8080", "8082"));
  const code = await Promise.race([child.exited, Bun.sleep(5_000).then(() => -1)]);
  expect(code).toBe(0);
}, 20_000);
