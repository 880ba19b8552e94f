import { afterAll, beforeAll, expect, test } from "bun:test";
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createNkey } from "../identity/nkey.ts";
import { createSvidRequest } from "../identity/svid.ts";
import { brokenAudit, listAudit } from "../store/audit.ts";
import { restoreBackup } from "../store/backup.ts";
import { lastRevision } from "../store/revisions.ts";
import { openStore } from "../store/store.ts";
import { type ApiFixture, type Asked, type AskOptions, startApi } from "./api.fixture.ts";
import { ROUTES } from "./api.ts";

let api: ApiFixture;

beforeAll(async () => {
  api = await startApi();
});

afterAll(() => api.close());

const service = (name: string, port = 8080) => `
apiVersion: weft.dev/v1
kind: Service
metadata: { name: ${name} }
spec: { ports: [{ port: ${port}, protocol: http }] }
`;

function apply(text: string, rest: object = {}): Promise<Asked> {
  return api.ask("/v1/apply", { body: { sources: [{ name: "a.yaml", text }], ...rest } });
}

test("apply, list, show, history, diff, rollback, delete", async () => {
  const first = await apply(service("cart"), { message: "start" });
  expect(first.status).toBe(200);
  expect(first.json).toMatchObject({
    revision: 1,
    dryRun: false,
    changes: [{ key: "Service/default/cart", op: "create", before: "" }],
  });
  expect((await apply(service("cart", 9090))).json["revision"]).toBe(2);
  const shown = await api.ask("/v1/resources/Service/default/cart");
  expect(shown.json).toMatchObject({
    origin: "document",
    revision: 2,
    resource: { spec: { ports: [{ port: 9090 }] } },
  });
  const history = await api.ask("/v1/revisions?limit=1");
  expect(history.json).toMatchObject({ items: [{ revision: 2 }] });
  const older = await api.ask(`/v1/revisions?limit=1&cursor=${history.json["next"]}`);
  expect(older.json).toMatchObject({ items: [{ revision: 1, message: "start" }] });
  expect(older.json["next"]).toBeUndefined();
  const diff = await api.ask("/v1/diff?from=1");
  const [item] = diff.json["items"] as { before: string; after: string }[];
  expect(item?.before).toContain("port: 8080");
  expect(item?.after).toContain("port: 9090");
  const back = await api.ask("/v1/rollback", { body: { to: 1 } });
  expect(back.json).toMatchObject({ revision: 3, changes: [{ op: "update" }] });
  const gone = await api.ask("/v1/resources/Service/default/cart", { method: "DELETE" });
  expect(gone.json).toMatchObject({ revision: 4, changes: [{ op: "delete" }] });
  expect((await api.ask("/v1/resources/Service/default/cart")).status).toBe(404);
  expect((await api.ask("/v1/revisions/4")).json).toMatchObject({
    author: expect.stringMatching(/^token:/),
    changes: [{ op: "delete", after: "" }],
  });
  expect(brokenAudit(api.store)).toBeUndefined();
});

test("lists come in pages, by kind and namespace", async () => {
  await apply(["a", "b", "c"].map((name) => service(name)).join("---"));
  const names = (asked: Asked) => (asked.json["items"] as { key: string }[]).map((it) => it.key);
  const first = await api.ask("/v1/resources/Service/default?limit=2");
  expect(names(first)).toEqual(["Service/default/a", "Service/default/b"]);
  const next = `/v1/resources/Service/default?limit=2&cursor=${first.json["next"]}`;
  expect(names(await api.ask(next))).toEqual(["Service/default/c"]);
  expect(names(await api.ask("/v1/resources/HTTPRoute"))).toEqual([]);
  expect(names(await api.ask("/v1/resources"))).toHaveLength(3);
  const text = "apiVersion: weft.dev/v1\nkind: Mesh\nmetadata: { name: mesh }\n";
  expect((await apply(text)).status).toBe(200);
  expect((await api.ask("/v1/resources/Mesh/mesh")).json).toMatchObject({ key: "Mesh/mesh" });
});

/** Nothing is unpacked, whatever it says it is. */
function compressed(bytes: Uint8Array<ArrayBuffer>): AskOptions {
  return { body: Bun.gzipSync(bytes), headers: { "content-encoding": "gzip" } };
}

const wrong: readonly (readonly [string, string, AskOptions, number, string])[] = [
  ["no token", "/v1/status", { token: "" }, 401, "token_missing"],
  ["a made-up token", "/v1/status", { token: "weft_abc" }, 401, "token_invalid"],
  ["no path", "/v1/nothing", {}, 404, "not_found"],
  ["another method", "/v1/status", { method: "POST" }, 405, "method_not_allowed"],
  ["no kind", "/v1/resources/Servce", {}, 404, "unknown_kind"],
  ["no document", "/v1/resources/Service/default/zz", {}, 404, "not_found"],
  ["no revision", "/v1/revisions/99", {}, 404, "unknown_revision"],
  ["a bad limit", "/v1/revisions?limit=0", {}, 400, "invalid_query"],
  ["not JSON", "/v1/apply", { body: "{" }, 400, "invalid_json"],
  ["a list", "/v1/apply", { body: "[]" }, 400, "invalid_json"],
  ["deeply nested JSON", "/v1/apply", { body: `${"[".repeat(65)}` }, 400, "too_deep"],
  ["a decompression bomb", "/v1/apply", compressed(Buffer.alloc(50_000_000)), 400, "invalid_utf8"],
  ["an unknown field", "/v1/rollback", { body: { to: 1, foo: 1 } }, 400, "unknown_field"],
  ["a missing field", "/v1/rollback", { body: {} }, 400, "missing_field"],
  ["a wrong type", "/v1/rollback", { body: { to: "1" } }, 400, "wrong_type"],
  ["a bad source", "/v1/apply", { body: { sources: [{ name: 1 }] } }, 400, "wrong_type"],
  ["an unknown revision", "/v1/rollback", { body: { to: 99 } }, 404, "unknown_revision"],
  ["a stale base", "/v1/delete", { body: { keys: ["Service/default/a"], base: 0 } }, 409, "stale"],
  ["a bad kind of token", "/v1/tokens", { body: { kind: "root" } }, 400, "invalid_value"],
  ["no certificate", "/v1/svid", { body: {} }, 401, "certificate_missing"],
  ["an unknown parameter", "/v1/status?wtch=true", {}, 400, "invalid_query"],
  ["a parameter twice", "/v1/revisions?limit=1&limit=2", {}, 400, "invalid_query"],
  ["a flag that is no flag", "/v1/backup?keys=1", {}, 400, "invalid_query"],
  ["a number that is none", "/v1/diff?from=1e3", {}, 400, "invalid_query"],
  ["a made-up cursor", "/v1/tokens?cursor=!!!", {}, 400, "invalid_query"],
  ["a cursor of another list", "/v1/revisions?cursor=QUFB", {}, 400, "invalid_query"],
  ["a cursor that is not UTF-8", "/v1/audit?cursor=_w", {}, 400, "invalid_query"],
  [
    "a book of a message",
    "/v1/rollback",
    { body: { to: 1, message: "x".repeat(2001) } },
    400,
    "invalid_value",
  ],
  ["an impossible range", "/v1/tokens", { body: { cidr: "10.0.0.0/33" } }, 400, "cidr_invalid"],
  ["no address in a range", "/v1/tokens", { body: { cidr: "999.1.1.1/9" } }, 400, "cidr_invalid"],
  ["a token for no service", "/v1/tokens", { body: { services: [] } }, 400, "invalid_value"],
  [
    "a limited admin token",
    "/v1/tokens",
    { body: { kind: "admin", services: ["a"] } },
    400,
    "invalid_value",
  ],
  ["an admin token to join", "/v1/join", { body: {} }, 403, "token_kind"],
];

for (const [what, path, options, status, code] of wrong) {
  test(`${what}: ${status} ${code}`, async () => {
    const before = lastRevision(api.store);
    const { headers, ...answer } = await api.ask(path, options);
    expect(answer.status).toBe(status);
    expect(headers.get("content-type")).toBe("application/problem+json");
    expect(answer.json).toMatchObject({ status, code, fix: expect.stringMatching(/./) });
    expect(lastRevision(api.store)).toBe(before);
  });
}

test("a misspelt dry run deletes nothing", async () => {
  await apply(service("kept"));
  for (const query of ["dryrun=true", "dryRun=1", "dryRun=yes", "dryRun"]) {
    const path = `/v1/resources/Service/default/kept?${query}`;
    const { status, json } = await api.ask(path, { method: "DELETE" });
    expect([query, status, json["code"]]).toEqual([query, 400, "invalid_query"]);
  }
  const path = "/v1/resources/Service/default/kept?dryRun=true";
  expect((await api.ask(path, { method: "DELETE" })).json).toMatchObject({ dryRun: true });
  expect((await api.ask("/v1/resources/Service/default/kept")).status).toBe(200);
});

test("a body that is not UTF-8 is refused, not mended", async () => {
  const body = Buffer.from('{"sources":[{"name":"a","text":"# caf\xe9"}]}', "latin1");
  const response = await api.fetch("/v1/apply", { body });
  expect(response.status).toBe(400);
  expect(await response.json()).toMatchObject({ code: "invalid_utf8" });
});

test("HEAD leaves no stream behind", async () => {
  for (let i = 0; i < 101; i++) {
    const answer = await api.ask("/v1/status?watch=true", { method: "HEAD" });
    expect(answer.status).toBe(200);
  }
});

test("content types other than JSON are refused", async () => {
  const headers = { "content-type": "text/yaml" };
  const answer = await api.ask("/v1/apply", { body: "a: b", headers });
  expect(answer.json).toMatchObject({ status: 415, code: "content_type" });
});

test("too much is refused: the body, and the documents in it", async () => {
  const text = "x".repeat(4 * 1024 * 1024 + 1);
  expect((await apply(`# ${text}`)).json).toMatchObject({ status: 413, code: "too_large" });
  expect((await apply(`# ${text}${text}`)).json).toMatchObject({ status: 413 });
});

test("issues name their place", async () => {
  const answer = await apply(service("bad", 99_999));
  expect(answer.status).toBe(422);
  expect(answer.json).toMatchObject({
    code: "invalid",
    issues: [{ source: "a.yaml", line: 5, path: "spec.ports[0].port" }],
  });
});

test("the token is judged before the body is read", async () => {
  const answer = await api.ask("/v1/apply", { token: "", body: "{" });
  expect(answer.status).toBe(401);
  expect(answer.headers.get("www-authenticate")).toContain("Bearer");
});

test("tokens are shown once, expire, and can be revoked", async () => {
  const made = await api.ask("/v1/tokens", { body: { kind: "admin", ttlMs: 60_000 } });
  expect(made.status).toBe(201);
  const { id, token } = made.json as { id: string; token: string };
  expect((await api.ask("/v1/status", { token })).status).toBe(200);
  const list = await api.ask("/v1/tokens");
  expect(list.text).toContain(id);
  expect(list.text).not.toContain(token);
  expect(list.text).not.toContain("secretHash");
  api.time.now += 61_000;
  expect((await api.ask("/v1/status", { token })).json["code"]).toBe("token_expired");
  expect((await api.ask(`/v1/tokens/${id}`, { method: "DELETE" })).status).toBe(204);
  expect((await api.ask("/v1/status", { token })).json["code"]).toBe("token_revoked");
  expect((await api.ask(`/v1/tokens/${id}`, { method: "DELETE" })).status).toBe(404);
});

test("a workload joins, renews by certificate, and shows up in the status", async () => {
  const made = await api.ask("/v1/tokens", { body: { services: ["cart"], namespace: "default" } });
  const token = String(made.json["token"]);
  const request = {
    csr: createSvidRequest().csrPem,
    natsKey: createNkey("user").publicKey,
    service: "cart",
  };
  const joined = await api.ask("/v1/join", { token, body: request });
  expect(joined.status).toBe(200);
  expect(joined.json).toMatchObject({ trustDomain: "weft.local", natsUrl: "nats://127.0.0.1:1" });
  expect((await api.ask("/v1/status", { token })).json["code"]).toBe("token_kind");
  const other = await api.ask("/v1/join", { token, body: { ...request, service: "db" } });
  expect(other.json).toMatchObject({ status: 403, code: "token_scope" });
  const peer = {
    ...{ serverName: "controlplane.weft", alpn: "", authorized: true, resumed: false },
    uris: ["spiffe://weft.local/ns/default/sa/cart"],
  };
  const { instance } = joined.json;
  const body = { instance, csr: request.csr, natsKey: request.natsKey };
  expect((await api.ask("/v1/svid", { token: "", peer, body })).status).toBe(200);
  const forged = { ...peer, authorized: false };
  expect((await api.ask("/v1/svid", { token: "", peer: forged, body })).status).toBe(401);
  const access = { instance, natsKey: request.natsKey, service: "a" };
  const more = await api.ask("/v1/access", { token: "", peer, body: access });
  expect(more.json["keys"]).toEqual(["eps.default.a.*", "out.default.a"]);
  const status = await api.ask("/v1/status");
  expect(status.json).toMatchObject({
    bus: { status: "down" },
    proxies: [{ instance, service: "cart", state: "down", revision: 0 }],
  });
  expect((await api.ask("/v1/workloads")).json).toMatchObject({ items: [{ instance }] });
});

test("an instance that was forgotten is not renewed and gets no further access", async () => {
  const token = String((await api.ask("/v1/tokens", { body: {} })).json["token"]);
  const keys = { csr: createSvidRequest().csrPem, natsKey: createNkey("user").publicKey };
  const joined = await api.ask("/v1/join", { token, body: { ...keys, service: "gone" } });
  const { instance } = joined.json;
  const path = `/v1/workloads/${instance}`;
  expect((await api.ask(path, { method: "DELETE" })).status).toBe(204);
  const peer = {
    ...{ serverName: "controlplane.weft", alpn: "", authorized: true, resumed: false },
    uris: ["spiffe://weft.local/ns/default/sa/gone"],
  };
  const renewed = await api.ask("/v1/svid", { token: "", peer, body: { instance, ...keys } });
  expect([renewed.status, renewed.json["code"]]).toEqual([404, "instance_unknown"]);
  const body = { instance, natsKey: keys.natsKey, service: "a" };
  expect((await api.ask("/v1/access", { token: "", peer, body })).status).toBe(404);
  expect((await api.ask("/v1/workloads")).text).not.toContain(String(instance));
  expect(listAudit(api.store).at(-1)).toMatchObject({ action: "workload.forget" });
  expect((await api.ask(path, { method: "DELETE" })).json["code"]).toBe("not_found");
});

test("open to all: trust bundle, health, description; readiness says what is missing", async () => {
  const open = { token: "" };
  const bundle = await api.ask("/v1/trust-bundle", open);
  expect(bundle.json).toMatchObject({ trustDomain: "weft.local" });
  expect(bundle.text).toContain("BEGIN CERTIFICATE");
  expect((await api.ask("/healthz", open)).text).toBe("ok\n");
  const ready = await api.ask("/readyz", open);
  const missing = /^not ready: bus: .*nats:\/\/127.0.0.1:1.*\n$/;
  expect([ready.status, ready.text]).toEqual([503, expect.stringMatching(missing)]);
  const { paths } = (await api.ask("/openapi.json", open)).json as { paths: object };
  expect(Object.keys(paths).sort()).toEqual([...new Set(ROUTES.map(({ path }) => path))].sort());
});

test("metrics count answers", async () => {
  const { text } = await api.ask("/metrics");
  expect(text).toContain('weft_api_requests_total{method="GET",path="/healthz",status="200"} 1');
});

test("a watch tells the state first, then changes", async () => {
  const response = await api.fetch("/v1/resources/Service?watch=true");
  expect(response.headers.get("content-type")).toBe("text/event-stream");
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  const read = async () => Buffer.from((await reader.read()).value ?? []).toString();
  expect(await read()).toMatch(/^id: \d+\nevent: list\ndata: \{.*"Service\/default\/a".*\}\n\n$/);
  await apply(service("watched"));
  expect(await read()).toMatch(/event: create\ndata: \{"key":"Service\/default\/watched"/);
  await reader.cancel();
});

test("a backup restores elsewhere, with keys only when asked", async () => {
  for (const keys of [false, true]) {
    const response = await api.fetch(`/v1/backup?keys=${keys}`);
    expect(response.status).toBe(200);
    const file = join(api.folder, `copy-${keys}`);
    writeFileSync(file, await response.bytes());
    const folder = join(api.folder, `restored-${keys}`);
    expect(restoreBackup(file, folder)).toEqual({ withKeys: keys });
    const store = openStore(join(folder, "weft.db"));
    expect(lastRevision(store)).toBe(lastRevision(api.store));
    store.close();
    expect(readdirSync(folder).includes("keys")).toBe(keys);
    expect(() => restoreBackup(file, folder)).toThrow("exists");
  }
  expect(readdirSync(api.folder).filter((name) => name.endsWith(".tmp"))).toEqual([]);
  const actions = listAudit(api.store).map((entry) => entry.action);
  expect(actions).toContain("backup");
});

test("a document accepted in spite of a fault carries its condition, for as long as it is so", async () => {
  const route = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: lenient }
spec:
  parentRefs: [{ group: "", kind: Service, name: faulty }]
  rules: [{ backendRefs: [{ name: absent, port: 80 }] }]
`;
  const put = (text: string) =>
    api.ask("/v1/apply", { body: { sources: [{ name: "x.yaml", text }], lenient: true } });
  const of = (name: string) => `
apiVersion: weft.dev/v1
kind: Service
metadata: { name: ${name} }
spec: { ports: [{ port: 80, protocol: http }] }
`;
  expect((await put(`${of("faulty")}---${route}`)).status).toBe(200);
  const resolved = { type: "ResolvedRefs", status: "False", reason: "BackendNotFound" };
  const path = "/v1/resources/HTTPRoute/default/lenient";
  expect((await api.ask(path)).json["status"]).toMatchObject({
    parents: [{ conditions: [{ type: "Accepted", status: "True" }, resolved] }],
  });
  const conditions = async () => (await api.ask("/v1/status")).json["conditions"];
  expect(await conditions()).toMatchObject([{ key: "HTTPRoute/default/lenient", ...resolved }]);
  expect((await put(of("absent"))).status).toBe(200);
  expect((await api.ask(path)).json).not.toHaveProperty("status");
  expect(await conditions()).toEqual([]);
});

test("the status lists proxies by namespace and service", async () => {
  for (const [namespace, service] of [
    ["west", "api"],
    ["east", "web"],
    ["east", "cart"],
    ["east", "web"],
    ["east", "auth"],
  ]) {
    const made = await api.ask("/v1/tokens", { body: { services: [service], namespace } });
    const body = {
      ...{ csr: createSvidRequest().csrPem, natsKey: createNkey("user").publicKey },
      ...{ namespace, service },
    };
    const token = String(made.json["token"]);
    expect((await api.ask("/v1/join", { token, body })).status).toBe(200);
  }
  const { proxies } = (await api.ask("/v1/status")).json as { proxies: Record<string, string>[] };
  const places = proxies.map(({ namespace, service }) => `${namespace}/${service}`);
  const joined = places.filter((place) => !place.startsWith("default/"));
  expect(joined).toEqual(["east/auth", "east/cart", "east/web", "east/web", "west/api"]);
});
