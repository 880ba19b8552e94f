import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Bus } from "../bus/bus.ts";
import { type NatsFixture, startNats } from "../bus/nats.fixture.ts";
import { apply } from "../control/apply.ts";
import { compileDocuments } from "../control/documents.ts";
import { createIssuer, type Issuer } from "../control/issue.ts";
import { issueOwnSvid } from "../control/own-identity.ts";
import { Publisher } from "../control/publish.ts";
import { Failure } from "../error.ts";
import { type Authority, openAuthority } from "../identity/ca.ts";
import { createConfigKey } from "../identity/config-key.ts";
import { createToken, formatToken, secretHash } from "../identity/token.ts";
import { type Listener, listenTls } from "../net/listen.ts";
import { tlsContext } from "../net/tls.ts";
import { Registry } from "../registry/registry.ts";
import { type ServeEnv, serveApp } from "../serve/serve.ts";
import type { OutDocument } from "../snapshot/document.ts";
import { configKeysOf, signMessage } from "../snapshot/envelope.ts";
import { allResources } from "../store/revisions.ts";
import { openStore, type Store } from "../store/store.ts";
import { putToken } from "../store/tokens.ts";
import { forgetWorkloads } from "../store/workloads.ts";
import { createLogger } from "../telemetry/log.ts";
import { Agent, type AgentOptions } from "./agent.ts";
import { loadSet } from "./disk-set.ts";

const key = createConfigKey();
const configKeys = [{ kid: key.kid, key: key.publicKey }];
const lines: string[] = [];
const log = createLogger({
  format: "json",
  level: "debug",
  now: Date.now,
  write: (line) => lines.push(line),
});

let nats: NatsFixture;
let control: Bus;
let folder: string;
let store: Store;
let authority: Authority;
let publisher: Publisher;
let registry: Registry;
let issuer: Issuer;
let api: Listener;
let url: string;
const agents: Agent[] = [];

beforeAll(async () => {
  nats = await startNats();
  const credentials = nats.control();
  control = await nats.connect(() => credentials);
});
afterAll(() => nats.close());

beforeEach(async () => {
  lines.length = 0;
  folder = mkdtempSync(join(tmpdir(), "weft-agent-"));
  store = openStore(join(folder, "weft.db"));
  authority = await openAuthority(folder, "weft.local", Date.now);
  publisher = await Publisher.start({
    store,
    bus: control,
    key,
    restored: true,
    now: Date.now,
    log,
  });
  registry = openRegistry();
  makeIssuer(3_600_000);
  await openApi();
});

afterEach(async () => {
  await Promise.all(agents.splice(0).map((agent) => agent.close()));
  api.closeAll();
  registry.close();
  publisher.close();
  store.close();
  rmSync(folder, { recursive: true, force: true });
});

function openRegistry(): Registry {
  const opened = new Registry({
    store,
    bus: control,
    ensureService: () => {},
    publish: async () => 0,
    now: Date.now,
    clock: () => performance.now(),
    hostAddresses: () => [],
    log,
  });
  opened.start();
  return opened;
}

function makeIssuer(svidTtlMs: number, natsUrl = nats.server.url): void {
  const now = Date.now;
  issuer = createIssuer({
    ...{ store, authority, nats: nats.authority, natsUrl, svidTtlMs, now },
    configKeys: () => configKeys,
  });
}

/** The identity part of the API, over real TLS. */
async function openApi(port = 0): Promise<void> {
  const own = await issueOwnSvid(authority, { hostnames: [], addresses: [] }, 3_600_000);
  const context = tlsContext({ cert: own.chainPem, key: own.keyPem, ca: authority.bundle });
  const answer = async (request: Request, env: ServeEnv): Promise<unknown> => {
    const path = new URL(request.url).pathname;
    if (path === "/v1/trust-bundle") return { bundle: authority.bundle };
    const body = (await request.json()) as never;
    const peer = env.peer?.uris[0] ?? "";
    const token = (request.headers.get("authorization") ?? "").replace("Bearer ", "");
    if (path === "/v1/join") return issuer.join({ ...(body as object), token } as never);
    return path === "/v1/svid" ? issuer.renew(peer, body) : issuer.access(peer, body);
  };
  const app = {
    fetch: (request: Request, env: ServeEnv) =>
      answer(request, env).then(
        (value) => Response.json(value),
        ({ status, code, message, fix }: Failure) =>
          Response.json({ code, detail: message, fix }, { status }),
      ),
  };
  api = listenTls({
    host: "127.0.0.1",
    port,
    context: () => context,
    requestCert: "optional",
    alpn: [],
    accept: (c) => serveApp(c, app),
  });
  url = `https://127.0.0.1:${api.port}`;
}

function token(change: { readonly exp?: number; readonly roots?: readonly string[] } = {}): string {
  const exp = change.exp ?? Date.now() + 60_000;
  const made = createToken(url, change.roots ?? authority.rootHashes, exp);
  const row = { id: made.id, kind: "join", secretHash: secretHash(made.secret) } as const;
  const rest = { scope: {}, description: "", createdBy: "", createdAt: 1, expiresAt: exp };
  putToken(store, { ...row, ...rest, once: false, usedAt: null, revokedAt: null });
  return formatToken(made);
}

function make(change: Partial<AgentOptions> = {}): Agent {
  const agent = new Agent({
    ...{ namespace: "default", service: "web", serviceAccount: "web" },
    upstreams: [{ namespace: "default", service: "cart" }],
    folder: join(folder, "web"),
    controlplane: url,
    token: undefined,
    check: () => [],
    now: Date.now,
    random: Math.random,
    log,
    ...change,
  });
  agents.push(agent);
  return agent;
}

function service(name: string) {
  return {
    apiVersion: "weft.dev/v1",
    kind: "Service",
    metadata: { name, namespace: "default", labels: {} },
    spec: { ports: [{ port: 80 }] },
  } as const;
}

function publish(...names: readonly string[]): Promise<boolean> {
  const text = names.map((name) => JSON.stringify(service(name))).join("\n---\n");
  const state = { store, trustDomain: "weft.local", now: Date.now, committed: () => {} };
  apply(state, [{ name: "test", text }], { author: "test" });
  const facts = { trustDomain: "weft.local", bundle: authority.bundle, configKeys };
  const rev = publisher.publish(compileDocuments(names.map(service), [], facts));
  return publisher.flushed(rev, 5_000);
}

async function until(what: string, check: () => boolean, ms = 6_000): Promise<number> {
  const started = performance.now();
  while (!check()) {
    if (performance.now() - started > ms) throw new Error(`${what}\n${lines.slice(-15).join("")}`);
    await Bun.sleep(5);
  }
  return performance.now() - started;
}

async function started(change: Partial<AgentOptions> = {}): Promise<Agent> {
  const agent = make({ token: token(), ...change });
  await agent.start();
  await until("a configuration arrives", () => agent.documents.value !== undefined);
  return agent;
}

const facts = {
  ...{ boot: "b", addr: "127.0.0.1", meshPort: 17006, labels: {}, locality: "", weight: 1 },
  ...{ ports: {}, version: "0", schema: 1 },
};

test("joins, gets its documents, registers, and acknowledges each revision", async () => {
  await publish("cart", "web");
  const agent = await started();
  expect(agent.svid.value?.svid.spiffeId).toBe("spiffe://weft.local/ns/default/sa/web");
  expect([...(agent.documents.value?.documents.keys() ?? [])].sort()).toEqual(
    ["eps.default.cart.0", "in.default.web", "mesh", "out.default.cart"].sort(),
  );
  expect(statSync(join(folder, "web", "identity.json")).mode & 0o777).toBe(0o600);
  agent.register(facts);
  await until("registered", () => agent.registered);
  await publish("cart", "web", "other");
  const { waiting } = await registry.acks.wait(
    publisher.position.rev,
    () => registry.listening(),
    3_000,
  );
  expect(waiting).toEqual([]);
  await agent.deregister(1_000);
  expect(registry.workloads()).toEqual([]);
});

test("a service that was not declared is granted on first use", async () => {
  await publish("cart", "web", "orders");
  const agent = await started();
  expect(agent.documents.value?.documents.has("out.default.orders")).toBe(false);
  const ms = performance.now();
  expect(await agent.access({ namespace: "default", service: "orders" })).toBe(true);
  expect(performance.now() - ms).toBeLessThan(1_000);
  expect(agent.documents.value?.documents.has("eps.default.orders.0")).toBe(true);
  expect(await agent.access({ namespace: "default", service: "nothing" })).toBe(false);
});

test("a route to a service nobody declared takes effect with its documents, not before", async () => {
  await publish("cart", "web", "orders");
  const agent = await started();
  const torn: number[] = [];
  agent.documents.subscribe((set) => {
    const out = set?.documents.get("out.default.cart") as OutDocument;
    const routed = out.ports[0]?.routes !== undefined;
    if (routed && !set?.documents.has("out.default.orders")) torn.push(set?.rev ?? 0);
  });
  const route = {
    apiVersion: "gateway.networking.k8s.io/v1",
    kind: "HTTPRoute",
    metadata: { name: "cart", namespace: "default" },
    spec: {
      parentRefs: [{ kind: "Service", group: "", name: "cart" }],
      rules: [{ backendRefs: [{ name: "orders", port: 80 }] }],
    },
  };
  const state = { store, trustDomain: "weft.local", now: Date.now, committed: () => {} };
  apply(state, [{ name: "test", text: JSON.stringify(route) }], { author: "test" });
  const facts = { trustDomain: "weft.local", bundle: authority.bundle, configKeys };
  const resources = allResources(store).map(({ resource }) => resource);
  const rev = publisher.publish(compileDocuments(resources, [], facts));
  const ms = await until("the route", () => agent.documents.value?.rev === rev);
  expect(ms).toBeLessThan(2_000);
  expect(agent.documents.value?.documents.has("eps.default.orders.0")).toBe(true);
  expect(torn).toEqual([]);
});

test("a control plane that forgot the instance is joined again with the token", async () => {
  await publish("cart", "web");
  const agent = await started();
  const instance = agent.membership?.instance ?? "";
  agent.register(facts);
  await until("registered", () => agent.registered);
  forgetWorkloads(store, [instance]);
  registry.close();
  registry = openRegistry();
  await until("back", () => registry.workloads().length === 1, 10_000);
  expect(agent.membership?.instance).not.toBe(instance);
  await publish("cart", "web", "later");
  await until("heard", () => agent.documents.value?.rev === publisher.position.rev);
}, 20_000);

test("certificates renew at half of their life, again and again, and the link stays", async () => {
  makeIssuer(3_000);
  await publish("cart", "web");
  const agent = await started();
  const seen = new Set<string>();
  agent.svid.subscribe((material) => seen.add(material?.svid.chainPem ?? ""));
  await until("three renewals", () => seen.size >= 3, 10_000);
  await publish("cart", "web", "later");
  await until("heard", () => agent.documents.value?.rev === publisher.position.rev);
  expect(agent.linked).toBe(true);
}, 20_000);

test("certificates renew although the disk takes nothing", async () => {
  makeIssuer(3_000);
  await publish("cart", "web");
  const agent = await started();
  const first = agent.svid.value?.svid.chainPem;
  // In the way of the file that is written aside.
  mkdirSync(join(folder, "web", "identity.json.new", "x"), { recursive: true });
  await until("a renewal", () => agent.svid.value?.svid.chainPem !== first, 5_000);
  await until("linked", () => agent.linked);
}, 20_000);

test("a bus that moved is followed at the next renewal", async () => {
  await publish("cart", "web");
  makeIssuer(3_000, "nats://127.0.0.1:1");
  const agent = make({ token: token() });
  await agent.start();
  expect(agent.linked).toBe(false);
  makeIssuer(3_600_000);
  await until("linked to the other bus", () => agent.linked);
  await until("documents", () => agent.documents.value !== undefined);
  expect(agent.membership?.natsUrl).toBe(nats.server.url);
});

test("a certificate that ended while the control plane was away is replaced by the token", async () => {
  await publish("cart", "web");
  makeIssuer(1_500);
  const agent = await started();
  const { port } = api;
  const instance = agent.membership?.instance;
  api.closeAll();
  api.stop();
  await Bun.sleep(1_800);
  expect(agent.svid.value?.svid.notAfter).toBeLessThan(Date.now());
  makeIssuer(3_600_000);
  await openApi(port);
  await until("a fresh certificate", () => {
    return (agent.svid.value?.svid.notAfter ?? 0) > Date.now() + 1_000_000;
  });
  await until("linked", () => agent.linked);
  expect(agent.membership?.instance).toBe(instance);
});

test("starts from disk with control plane and bus away, and links when they return", async () => {
  await publish("cart", "web");
  const first = await started();
  await first.close();
  const { port } = api;
  api.closeAll();
  process.kill(nats.server.pid, "SIGSTOP");
  const start = performance.now();
  const second = make();
  expect(second.documents.value?.documents.has("out.default.cart")).toBe(true);
  await second.start();
  expect(performance.now() - start).toBeLessThan(500);
  expect(second.missing).toEqual([]);
  expect(second.configAgeMs()).toBeGreaterThan(0);
  process.kill(nats.server.pid, "SIGCONT");
  await openApi(port);
  await publish("cart", "web", "more");
  await until("linked", () => second.documents.value?.rev === publisher.position.rev, 10_000);
  await until("heard", () => second.configAgeMs() === 0);
}, 30_000);

test("hostile messages on the bus: none applied, all counted, the last good set stays", async () => {
  await publish("cart", "web");
  const agent = await started();
  const before = agent.documents.value;
  const old = (await control.kvGet("out.default.cart")) as Uint8Array;
  await publish("cart", "web", "x");
  await until("heard", () => agent.documents.value?.rev === publisher.position.rev);
  publisher.close();
  const last = agent.documents.value;
  expect(last).not.toBe(before);
  const refused = () => {
    const counts = new Map(agent.messageCounts);
    counts.delete("accepted");
    return [...counts.values()].reduce((sum, n) => sum + n, 0);
  };
  const base = refused();
  const accepted = agent.messageCounts.get("accepted");
  const forged = createConfigKey();
  const subject = "$KV.weft-config.";
  for (let n = 0; n < 1_000; n += 5) {
    const header = { epoch: 99, rev: n, key: "mesh", op: "del", t: n } as const;
    control.publish(`${subject}mesh`, signMessage(forged, header, new Uint8Array(0)));
    control.publish(`${subject}out.default.cart`, old);
    control.publish(`${subject}in.default.web`, old);
    control.publish(`${subject}out.default.cart`, new Uint8Array(0));
    control.publish(`${subject}head`, old);
  }
  await until("all counted", () => refused() - base >= 1_000);
  expect(refused() - base).toBe(1_000);
  expect(agent.messageCounts.get("accepted")).toBe(accepted as number);
  expect(agent.documents.value).toBe(last as NonNullable<typeof last>);
}, 20_000);

test("a new epoch after a wiped bus is followed, and the disk keeps up", async () => {
  await publish("cart", "web");
  const agent = await started();
  const epoch = agent.documents.value?.epoch ?? 0;
  await control.request("$JS.API.STREAM.DELETE.KV_weft-config", new Uint8Array(0));
  await until("the new epoch", () => (agent.documents.value?.epoch ?? 0) > epoch, 8_000);
  expect(agent.documents.value?.documents.has("eps.default.cart.0")).toBe(true);
  await agent.close();
  expect(loadSet(join(folder, "web"), configKeysOf(configKeys)).set?.epoch).toBe(epoch + 1);
}, 20_000);

async function failureOf(act: () => Promise<unknown>): Promise<Failure> {
  const error = await act().catch((caught: unknown) => caught);
  if (error instanceof Failure) return error;
  throw new Error(`no Failure but ${error}`);
}

test("tokens that are expired, foreign, or no tokens are refused with a reason", async () => {
  const expired = make({ token: token({ exp: Date.now() - 1 }) });
  expect((await failureOf(() => expired.start())).code).toBe("token_expired");
  const foreign = make({ token: token({ roots: ["0".repeat(64)] }) });
  expect((await failureOf(() => foreign.start())).code).toBe("token_foreign");
  const nonsense = make({ token: "nonsense" });
  expect((await failureOf(() => nonsense.start())).code).toBe("token_malformed");
  expect(() => make()).toThrow("no token");
});

test("a folder of another workload is refused", async () => {
  await publish("cart", "web");
  await (await started()).close();
  const make2 = () => make({ service: "cart", serviceAccount: "cart", token: token() });
  expect(make2).toThrow("holds the identity of default/web");
});

test("an unreachable control plane is tried until it is there", async () => {
  await publish("cart", "web");
  const { port } = api;
  const text = token();
  api.closeAll();
  const agent = make({ token: text });
  const starting = agent.start();
  await until("told", () => lines.some((line) => line.includes("cannot reach the control plane")));
  expect(agent.missing[0]).toContain("cannot reach");
  await openApi(port);
  await starting;
  await until("configured", () => agent.documents.value !== undefined);
}, 15_000);
