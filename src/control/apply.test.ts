import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Failure } from "../error.ts";
import { allResources, lastRevision, revision, storedResource } from "../store/revisions.ts";
import { openStore, type Store } from "../store/store.ts";
import {
  type ApplyOptions,
  apply,
  type ControlState,
  ensureService,
  remove,
  rollback,
} from "./apply.ts";
import { diffRevisions } from "./diff.ts";
import { Invalid } from "./invalid.ts";

let folder: string;
let store: Store;
let state: ControlState;
let committed: number[];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "weft-apply-"));
  store = openStore(join(folder, "weft.db"));
  committed = [];
  state = {
    store,
    trustDomain: "weft.local",
    now: () => 1000,
    committed: (number) => committed.push(number),
  };
});

afterEach(() => {
  store.close();
  rmSync(folder, { recursive: true, force: true });
});

const service = (name: string, port = 8080) => `
apiVersion: weft.dev/v1
kind: Service
metadata: { name: ${name} }
spec: { ports: [{ port: ${port}, protocol: http }] }
`;

const peerAuth = (target: string) => `
apiVersion: weft.dev/v1
kind: PeerAuth
metadata: { name: p }
spec: { ${target}mtls: { mode: PERMISSIVE } }
`;

const route = (backend: string, parent = "cart") => `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: r }
spec:
  parentRefs: [{ group: "", kind: Service, name: ${parent} }]
  rules: [{ backendRefs: [{ name: ${backend}, port: 8080 }] }]
`;

function put(texts: readonly string[], options: Partial<ApplyOptions> = {}) {
  const sources = texts.map((text, i) => ({ name: `${i}.yaml`, text }));
  return apply(state, sources, { author: "test", ...options });
}

function failureOf(act: () => unknown): Failure {
  try {
    act();
  } catch (error) {
    if (error instanceof Failure) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

const keys = () => allResources(store).map((row) => row.key);

test("an apply is one revision; the same again is none", () => {
  const first = put([service("cart"), service("db")], { message: "start" });
  expect(first.revision).toBe(1);
  expect(first.changes.map((change) => [change.op, change.key])).toEqual([
    ["create", "Service/default/cart"],
    ["create", "Service/default/db"],
  ]);
  expect(put([service("cart")])).toEqual({ revision: 1, changes: [], dryRun: false });
  expect(put([service("cart", 9090)]).revision).toBe(2);
  expect(committed).toEqual([1, 2]);
  expect(revision(store, 1)).toMatchObject({ author: "test", message: "start", t: 1000 });
  expect(storedResource(store, "Service/default/cart")).toMatchObject({ created: 1, revision: 2 });
});

test("a dry run says what would change and writes nothing", () => {
  const result = put([service("cart")], { dryRun: true });
  expect(result).toMatchObject({ revision: 0, dryRun: true });
  expect(result.changes).toHaveLength(1);
  expect(lastRevision(store)).toBe(0);
  expect(committed).toEqual([]);
});

test("one bad document keeps the good ones out", () => {
  const failure = failureOf(() => put([service("cart"), service("bad", 99_999)]));
  expect(failure).toBeInstanceOf(Invalid);
  expect(failure.status).toBe(422);
  expect((failure as Invalid).issues[0]).toMatchObject({
    ...{ source: "1.yaml", line: 5, path: "spec.ports[0].port", value: "99999" },
  });
  expect(keys()).toEqual([]);
});

test("a dangling reference is refused, unless lenient; it does not block others later", () => {
  const failure = failureOf(() => put([service("cart"), route("nobody")])) as Invalid;
  expect(failure.issues[0]).toMatchObject({ code: "unknown_service", value: "nobody" });
  expect(put([service("cart"), route("nobody")], { lenient: true }).revision).toBe(1);
  expect(put([service("other")]).revision).toBe(2);
  expect(() => put([route("nobody2")])).toThrow(Invalid);
});

test("a Process is not for the control plane", () => {
  const text = `
apiVersion: weft.dev/v1
kind: Process
metadata: { name: x }
spec: { command: [true], service: x }
`.replace("[true]", '["true"]');
  const failure = failureOf(() => put([text])) as Invalid;
  expect(failure.issues[0]).toMatchObject({ code: "process_not_stored", line: 3 });
});

test("another trust domain is refused", () => {
  const mesh = (td: string) => `
apiVersion: weft.dev/v1
kind: Mesh
metadata: { name: mesh }
spec: { trustDomain: ${td} }
`;
  const failure = failureOf(() => put([mesh("other.example")])) as Invalid;
  expect(failure.issues[0]?.path).toBe("spec.trustDomain");
  expect(put([mesh("weft.local")]).revision).toBe(1);
});

test("a base is compared per document", () => {
  put([service("cart")]);
  put([service("db")]);
  expect(put([service("cart", 9090)], { base: 1 }).revision).toBe(3);
  const stale = failureOf(() => put([service("cart", 9191)], { base: 2 }));
  expect(stale).toMatchObject({ code: "stale", status: 409 });
  expect(stale.message).toContain("Service/default/cart");
  remove(state, ["Service/default/db"], { author: "test" });
  expect(failureOf(() => put([service("db")], { base: 3 })).code).toBe("stale");
  expect(failureOf(() => put([service("new")], { base: 99 })).code).toBe("stale");
  expect(lastRevision(store)).toBe(4);
});

test("prune deletes what is not named, but not what workloads registered", () => {
  put([service("cart"), service("db")]);
  ensureService(state, { namespace: "default", service: "web" }, [{ port: 80 }]);
  const result = put([service("cart")], { prune: true });
  expect(result.changes.map((change) => [change.op, change.key])).toEqual([
    ["delete", "Service/default/db"],
  ]);
  expect(keys()).toEqual(["Service/default/cart", "Service/default/web"]);
});

test("what others refer to is deleted only with them", () => {
  put([service("cart"), service("db"), route("db")]);
  const refused = failureOf(() => remove(state, ["Service/default/db"], { author: "test" }));
  expect(refused).toMatchObject({ code: "referenced", status: 409 });
  expect(refused.message).toContain("HTTPRoute/default/r");
  const options = { author: "test", cascade: true };
  const result = remove(state, ["Service/default/db"], options);
  expect(result.changes.map((change) => change.key)).toEqual([
    "HTTPRoute/default/r",
    "Service/default/db",
  ]);
  expect(failureOf(() => remove(state, ["Service/default/db"], options)).status).toBe(404);
});

test("a PeerAuth goes with the service it names; one of the namespace names none", () => {
  put([service("cart"), peerAuth("target: { service: cart }, ")]);
  const refused = failureOf(() => remove(state, ["Service/default/cart"], { author: "test" }));
  expect(refused.message).toContain("PeerAuth/default/p");
  remove(state, ["Service/default/cart"], { author: "test", cascade: true });
  expect(keys()).toEqual([]);
  put([service("cart"), peerAuth("")]);
  remove(state, ["Service/default/cart"], { author: "test" });
  expect(keys()).toEqual(["PeerAuth/default/p"]);
});

test("a rollback is a new revision with the documents of the old one", () => {
  put([service("cart"), route("cart")]);
  put([service("cart", 9090), service("db")], { lenient: true });
  remove(state, ["HTTPRoute/default/r"], { author: "test" });
  ensureService(state, { namespace: "default", service: "web" }, [{ port: 80 }]);
  const result = rollback(state, 1, { author: "test" });
  expect(result.revision).toBe(5);
  expect(keys()).toEqual(["HTTPRoute/default/r", "Service/default/cart", "Service/default/web"]);
  expect(revision(store, 5)?.message).toBe("rollback to revision 1");
  const diff = diffRevisions(store, 1, 5);
  expect(diff.map((item) => item.key)).toEqual(["Service/default/web"]);
  expect(failureOf(() => rollback(state, 9, { author: "test" })).status).toBe(404);
  expect(diffRevisions(store, 1, 2).find((item) => item.key.endsWith("cart"))?.after).toContain(
    "port: 9090",
  );
});

test("a registration makes a service, adds ports, and gives way to a document", () => {
  const name = { namespace: "default", service: "web" };
  ensureService(state, name, [{ port: 80, protocol: "http" }]);
  ensureService(state, name, [{ port: 80, protocol: "http" }]);
  expect(lastRevision(store)).toBe(1);
  ensureService(state, name, [{ port: 81 }]);
  const key = "Service/default/web";
  expect(storedResource(store, key)?.resource.spec).toEqual({
    ports: [{ port: 80, protocol: "http" }, { port: 81 }],
  });
  put([service("web", 80)]);
  expect(storedResource(store, key)?.origin).toBe("document");
  ensureService(state, name, [{ port: 82 }]);
  expect(lastRevision(store)).toBe(3);
});

test("workloads cannot make a Service grow without end", () => {
  const name = { namespace: "default", service: "greedy" };
  const ports = (from: number) => Array.from({ length: 32 }, (_, i) => ({ port: from + i }));
  ensureService(state, name, ports(1000));
  ensureService(state, name, ports(2000));
  const before = lastRevision(state.store);
  expect(() => ensureService(state, name, [{ port: 3000 }])).toThrow("64 ports already");
  ensureService(state, name, ports(1000));
  expect(lastRevision(state.store)).toBe(before);
});
