/**
 * Everything a person can get wrong: each gives one line with the reason, a next step, the
 * documented exit code, and leaves nothing half done.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { type Result, run, spawn, TestMesh, takePorts, WEFT } from "../harness/mesh.ts";

let mesh: TestMesh;

beforeAll(async () => {
  mesh = await TestMesh.start();
  await mesh.apply(service("cart", 8080));
}, 60_000);

afterAll(async () => {
  await mesh?.stop();
});

function service(name: string, port: number): string {
  return `apiVersion: weft.dev/v1
kind: Service
metadata: { name: ${name} }
spec:
  ports: [{ port: ${port}, protocol: http }]
`;
}

function route(backends: string, parent = "cart"): string {
  return `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: r }
spec:
  parentRefs: [{ kind: Service, group: "", name: ${parent} }]
  rules:
    - backendRefs: ${backends}
`;
}

const bomb = `a: &a [x, x, x, x, x, x, x, x, x]
${"bcdefghi"
  .split("")
  .map((name, i) => {
    const before = "abcdefgh"[i];
    return `${name}: &${name} [${Array(9).fill(`*${before}`).join(", ")}]`;
  })
  .join("\n")}
`;

interface BadDocument {
  readonly name: string;
  readonly text: string;
  /** What the one line must say. */
  readonly says: RegExp;
  readonly code?: number;
}

const documents: readonly BadDocument[] = [
  {
    name: "an unknown field",
    text: service("cart", 8080).replace("protocol:", "protocl:"),
    says: /:5:\d+: .*spec\.ports\[0\]\.protocl.*protocol/,
  },
  {
    name: "an unknown kind",
    text: service("cart", 8080).replace("kind: Service", "kind: Servce"),
    says: /:2:\d+: .*kind.*Servce.*Service/s,
  },
  {
    name: "a wrong type",
    text: service("cart", 8080).replace("port: 8080", 'port: "8080"'),
    says: /:5:\d+: .*spec\.ports\[0\]\.port/,
  },
  {
    name: "a route to a service that does not exist",
    text: route("[{ name: nobody, port: 8080 }]"),
    says: /:7:\d+: .*spec\.rules\[0\]\.backendRefs\[0\].*nobody/,
  },
  {
    name: "a route to a subset that does not exist",
    text: route("[{ group: weft.dev, kind: Subset, name: cart.v9, port: 8080 }]"),
    says: /cart\.v9/,
  },
  {
    name: "a route for a service that does not exist",
    text: route("[{ name: cart, port: 8080 }]", "nobody"),
    says: /spec\.parentRefs\[0\].*nobody/,
  },
  {
    name: "a duplicate port",
    text: service("cart", 8080).replace("ports: [", "ports: [{ port: 8080 }, "),
    says: /spec\.ports\[1\]/,
  },
  {
    name: "weights that are all 0",
    text: route("[{ name: cart, port: 8080, weight: 0 }]"),
    says: /weight/,
  },
  { name: "malformed YAML", text: "a: [1, 2\nb: }", says: /:\d+:\d+: / },
  { name: "an alias bomb", text: bomb, says: /alias/i },
  {
    name: "a document of 5 MB",
    text: `# ${"x".repeat(5 * 1024 * 1024)}\n${service("cart", 8080)}`,
    says: /4 MiB/,
  },
];

function oneLine(result: Result, says: RegExp, code: number): void {
  expect(result.stderr).toMatch(says);
  expect(result.stderr).not.toContain("    at ");
  expect(result.code).toBe(code);
}

async function revision(): Promise<string> {
  return (await mesh.weft("history", "-o", "json")).stdout;
}

for (const bad of documents) {
  test(`${bad.name} is refused, and nothing is written`, async () => {
    const before = await revision();
    const file = join(mesh.folder, "bad.yaml");
    writeFileSync(file, `${service("fine", 8081)}---\n${bad.text}`);
    writeFileSync(file, bad.text);
    oneLine(await mesh.weft("apply", "-f", file), bad.says, bad.code ?? 3);
    expect(await revision()).toBe(before);
  });
}

test("a good document beside a bad one is not written either", async () => {
  const before = await revision();
  const file = join(mesh.folder, "both.yaml");
  writeFileSync(file, `${service("fine", 8081)}---\n${service("bad", 99_999)}`);
  oneLine(await mesh.weft("apply", "-f", file), /spec\.ports\[0\]\.port/, 3);
  expect(await revision()).toBe(before);
});

function weftWith(env: Record<string, string>, ...args: string[]): Promise<Result> {
  return run([WEFT, ...args], { env: { NO_COLOR: "1", WEFT_DATA: mesh.data, ...env } });
}

test("a damaged token and a wrong one are refused", async () => {
  const file = join(mesh.folder, "wrong-token");
  const good = readFileSync(join(mesh.data, "admin.token"), "utf8").trim();
  const get = (text: string) => {
    writeFileSync(file, `${text}\n`, { mode: 0o600 });
    const env = { WEFT_TOKEN_FILE: file };
    return weftWith(env, "get", "services", `--controlplane=${mesh.api}`);
  };
  oneLine(await get(`${good.slice(0, -6)}AAAAAA`), /damaged\n.*weft token create/, 2);
  const fields: unknown = JSON.parse(Buffer.from(good.slice(5), "base64url").toString());
  const secret = Buffer.alloc(20, 1).toString("base64url");
  const wrong = JSON.stringify(Object.assign({}, fields, { secret }));
  const text = `weft_${Buffer.from(wrong).toString("base64url")}`;
  oneLine(await get(text), /not one of this mesh\n.*weft token create/, 3);
});

test("a revoked token, and one for joining, are refused by the API", async () => {
  const file = join(mesh.folder, "other-token");
  const get = () =>
    weftWith({ WEFT_TOKEN_FILE: file }, "get", "services", `--controlplane=${mesh.api}`);
  const admin = await mesh.weft("token", "create", "--admin", "--ttl", "1h");
  writeFileSync(file, admin.stdout, { mode: 0o600 });
  expect((await get()).code).toBe(0);
  const id = /token (\S+),/.exec(admin.stderr)?.[1] ?? "";
  expect((await mesh.weft("token", "revoke", id)).code).toBe(0);
  oneLine(await get(), new RegExp(`token ${id} was revoked`), 3);
  writeFileSync(file, readFileSync(await mesh.token()), { mode: 0o600 });
  oneLine(await get(), /only for joining/, 3);
});

test("a stale base is refused: 409", async () => {
  const sources = [{ name: "a", text: service("cart", 8080) }];
  const token = readFileSync(join(mesh.data, "admin.token"), "utf8").trim();
  const answer = await fetch(`${mesh.api}/v1/apply`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: JSON.stringify({ sources, base: 99 }),
    tls: { rejectUnauthorized: false },
  });
  expect(answer.status).toBe(409);
  expect(await answer.json()).toMatchObject({
    code: "stale",
    fix: expect.stringContaining("weft diff"),
  });
});

async function join_(tokenFile: string): Promise<{ code: number; log: string }> {
  const base = takePorts(60);
  const child = spawn([
    ...[WEFT, "--mode=sidecar", "--service=x", `--controlplane=${mesh.api}`],
    ...[`--token-file=${tokenFile}`, `--data=${join(mesh.folder, `join-${base}`)}`],
    `--port-base=${base}`,
  ]);
  const code = await Promise.race([child.exited, Bun.sleep(8_000).then(() => -1)]);
  child.kill("SIGKILL");
  return { code, log: child.log() };
}

test("an expired token and a foreign one are refused at join", async () => {
  const created = await mesh.weft("token", "create", "--ttl", "1s");
  expect(created.code).toBe(0);
  const expired = join(mesh.folder, "expired");
  writeFileSync(expired, created.stdout, { mode: 0o600 });
  await Bun.sleep(1_500);
  const late = await join_(expired);
  expect(late.code).toBeGreaterThan(0);
  expect(late.log).toMatch(/expired/);

  const other = await TestMesh.start();
  try {
    const foreign = await join_(await other.token());
    expect(foreign.code).toBeGreaterThan(0);
    expect(foreign.log).toMatch(/root|another|different/i);
  } finally {
    await other.stop();
  }
}, 60_000);

test("no control plane there: exit 4", async () => {
  const result = await weftWith(
    { WEFT_TOKEN_FILE: join(mesh.data, "admin.token") },
    ...["status", `--controlplane=https://127.0.0.1:${takePorts(1)}`],
  );
  oneLine(result, /reach|refused|running/i, 4);
});

test("usage errors: exit 2", async () => {
  oneLine(await weftWith({}, "--mode=sidecr"), /sidecr/, 2);
  oneLine(await weftWith({}, "apply"), /-f/, 2);
  oneLine(await weftWith({}, "--mode=sidecar", "--service=x", "--app=99999"), /99999/, 2);
});

test("a busy API port is an error that names it", async () => {
  const base = takePorts(240);
  const blocker = createServer();
  await new Promise<void>((resolve) => blocker.listen(base + 10, "127.0.0.1", resolve));
  const result = await run(
    [WEFT, "--mode=controlplane", `--data=${join(mesh.folder, "busy")}`, `--port-base=${base}`],
    { env: { NO_COLOR: "1" } },
  );
  blocker.close();
  oneLine(result, new RegExp(String(base + 10)), 1);
});

test("a second process on the same data folder is refused", async () => {
  const result = await run([
    ...[WEFT, "--mode=controlplane", `--data=${mesh.data}`, `--port-base=${takePorts(240)}`],
  ]);
  oneLine(result, /another|already|use/i, 1);
});

test("an unwritable data folder is refused", async () => {
  const parent = join(mesh.folder, "readonly");
  mkdirSync(parent);
  const file = join(parent, "file");
  writeFileSync(file, "not a folder");
  chmodSync(parent, 0o500);
  const result = await run([
    ...[WEFT, "--mode=controlplane", `--data=${file}/data`, `--port-base=${takePorts(240)}`],
  ]);
  oneLine(result, /data/i, 1);
  expect(existsSync(join(file, "data"))).toBe(false);
});

test("a corrupt database is refused with the way back", async () => {
  const broken = await TestMesh.start();
  try {
    await broken.apply(service("cart", 8080));
    await broken.killControlplane();
    for (const name of readdirSync(broken.data).filter((name) => /\.db(-wal)?$/.test(name))) {
      const bytes = readFileSync(join(broken.data, name));
      bytes.fill(0x5a, 100);
      writeFileSync(join(broken.data, name), bytes);
    }
    const result = await run([
      ...[WEFT, "--mode=controlplane", `--data=${broken.data}`, `--port-base=${takePorts(240)}`],
    ]);
    oneLine(result, /restore/, 1);
  } finally {
    await broken.stop();
  }
}, 60_000);

// Only root may mount a file system small enough to fill.
test.skipIf(process.getuid?.() !== 0)(
  "a full disk: refused, nothing half done, and over",
  async () => {
    const disk = join(mesh.folder, "disk");
    mkdirSync(disk);
    expect((await run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", disk])).code).toBe(0);
    const base = takePorts(240);
    const api = `https://127.0.0.1:${base + 10}`;
    const start = [WEFT, "controlplane", `--data=${disk}/cp`, `--port-base=${base}`];
    const child = spawn(start);
    const weft = (...args: string[]) => run([WEFT, ...args, `--data=${disk}/cp`]);
    try {
      expect((await weft("wait", "controlplane", `--controlplane=${api}`)).code).toBe(0);
      await run(["dd", "if=/dev/zero", `of=${disk}/fill`, "bs=64k"]);
      await run(["dd", "if=/dev/zero", `of=${disk}/rest`, "bs=1k"]);
      const file = join(mesh.folder, "small.yaml");
      writeFileSync(file, service("cart", 8080));
      oneLine(await weft("apply", "-f", file), /no space left[\s\S]*free space/, 1);
      oneLine(await weft("token", "create"), /no space left[\s\S]*free space/, 1);
      oneLine(await weft("backup", join(disk, "b")), /no space left[\s\S]*free space/, 1);
      child.kill("SIGKILL");
      await child.exited;
      oneLine(await run(start), /no space left[\s\S]*free space/, 1);
      rmSync(join(disk, "fill"));
      rmSync(join(disk, "rest"));
      const again = spawn(start);
      expect((await weft("wait", "controlplane", `--controlplane=${api}`)).code).toBe(0);
      expect((await weft("apply", "-f", file)).stderr).toContain("revision 1");
      again.kill("SIGTERM");
      await again.exited;
    } finally {
      child.kill("SIGKILL");
      await run(["umount", "-l", disk]);
    }
  },
  60_000,
);

test("an unreachable external NATS is told, and the API still answers", async () => {
  const base = takePorts(240);
  const child = spawn([
    ...[WEFT, "--mode=controlplane", `--data=${join(mesh.folder, "nonats")}`],
    ...[`--port-base=${base}`, `--nats-url=nats://127.0.0.1:${takePorts(1)}`],
  ]);
  const code = await Promise.race([child.exited, Bun.sleep(6_000).then(() => -1)]);
  child.kill("SIGKILL");
  expect(child.log()).toMatch(/nats/i);
  expect(code === -1 || code === 1 || code === 4).toBe(true);
}, 20_000);
