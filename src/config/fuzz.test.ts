/**
 * Broken input never throws and always says something: the Gateway API's manifests and a mesh of
 * our own, mutated, go through parsing, validation and back.
 */
import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { parseSources } from "./parse.ts";
import { toYaml } from "./to-yaml.ts";
import { validateSet } from "./validate.ts";

const ROOT = join(import.meta.dir, "../..");
const MANIFESTS = join(
  process.env["WEFT_CORPORA"] ?? join(ROOT, "../shared/corpora"),
  "gateway-api-conformance/manifests/tests",
);

/** Mutations of each sort; `WEFT_FUZZ_RUNS` for a longer look. */
const RUNS = Number(process.env["WEFT_FUZZ_RUNS"] ?? 250);
const RUN_MS_MAX = 20_000 + RUNS * 50;

const OWN = `apiVersion: weft.dev/v1
kind: Mesh
metadata: { name: mesh }
spec: { outbound: ALLOW_ANY, mtls: { mode: STRICT }, defaults: { timeouts: { request: 5s } } }
---
apiVersion: weft.dev/v1
kind: Service
metadata: { name: cart, labels: { "app.kubernetes.io/name": "on" } }
spec:
  ports: [{ port: 80, protocol: http, name: web }]
  subsets: [{ name: v1, labels: &v1 { version: "1.0" } }]
  selector: { labels: *v1 }
  visibility: ["*"]
---
apiVersion: weft.dev/v1
kind: Workload
metadata: { name: old }
spec: { service: cart, address: "::1", ports: { "80": 8080 }, locality: eu/a, weight: 3 }
---
apiVersion: weft.dev/v1
kind: TrafficPolicy
metadata: { name: cart }
spec:
  target: { service: cart, port: 80 }
  loadBalancer: { simple: ROUND_ROBIN }
  retries: { attempts: 1, on: [reset], codes: [503], backoff: 10ms }
  retryBudget: { percent: 10 }
  connectionPool: { maxConnections: 3, connectTimeout: 1s }
---
apiVersion: weft.dev/v1
kind: PeerAuth
metadata: { name: cart }
spec: { target: { service: cart, port: 80 }, mtls: { mode: PERMISSIVE } }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: cart }
spec:
  parentRefs: [{ group: "", kind: Service, name: cart, port: 80 }]
  hostnames: ["*.example"]
  rules:
    - matches: [{ path: { type: Exact, value: /a }, method: GET, headers: [{ name: a, value: b }] }]
      filters:
        - type: URLRewrite
          urlRewrite: { hostname: x, path: { type: ReplaceFullPath, replaceFullPath: / } }
      backendRefs: [{ group: weft.dev, kind: Subset, name: cart.v1, port: 80, weight: 2 }]
      timeouts: { request: 10s, backendRequest: 1s }
---
apiVersion: weft.dev/v1
kind: Process
metadata: { name: p }
spec:
  command: [a, "-b"]
  env: { A: "yes" }
  service: cart
  app: ["80=127.0.0.1:8080/http"]
  upstreams: ["db.shop/5432:9191"]
`;

function judged(text: string): boolean {
  const { resources, issues } = parseSources([{ name: "f", text }]);
  const set = resources.map((parsed) => parsed.resource);
  const all = [...issues, ...validateSet(set, resources, { lenient: false })];
  for (const issue of all) {
    expect(issue.line).toBeGreaterThan(0);
    expect(issue.column).toBeGreaterThan(0);
    expect(issue.reason).not.toBe("");
    expect(issue.fix).not.toBe("");
    expect(issue.code).toMatch(/^[a-z_]+$/);
    expect(`${issue.reason}${issue.fix}${issue.value}`).not.toMatch(/[\n\r]/);
  }
  const again = parseSources([
    { name: "f", text: set.map((resource) => toYaml(resource)).join("---\n") },
  ]);
  expect(again.issues).toEqual([]);
  expect(again.resources.map((parsed) => parsed.resource)).toEqual(set);
  return resources.length + all.length > 0;
}

/** One edit of a text: bytes cut, doubled, replaced, or a snippet that YAML treats specially. */
const SNIPPETS = [
  ...["\t", "\n", ": ", "- ", "{", "}", "[", "]", "&a ", "*a ", "!!map ", "<<: ", "? ", "'", '"'],
  ...["null", "~", "true", "1e9", "0x1f", "\u0000", "\u2028", "---\n", "...\n", "%YAML 1.1\n"],
  ...["__proto__: ", "constructor", "# ", "|", ">", "9".repeat(400), "🦎", "\ud800"],
] as const;

interface Edit {
  readonly at: number;
  readonly cut: number;
  readonly insert: string;
}

const edits = fc.array(
  fc.record<Edit>({
    at: fc.double({ min: 0, max: 1, noNaN: true }),
    cut: fc.nat({ max: 12 }),
    insert: fc.oneof(fc.constantFrom(...SNIPPETS), fc.string({ maxLength: 6 })),
  }),
  { minLength: 1, maxLength: 4 },
);

function mutated(text: string, list: readonly Edit[]): string {
  let result = text;
  for (const { at, cut, insert } of list) {
    const start = Math.floor(at * result.length);
    result = result.slice(0, start) + insert + result.slice(start + cut);
  }
  return result;
}

test("our own kinds come back from YAML as they went in", () => {
  const { resources, issues } = parseSources([{ name: "f", text: OWN }]);
  expect(issues).toEqual([]);
  expect(resources).toHaveLength(7);
  expect(judged(OWN)).toBe(true);
});

test(
  "mutations of our own kinds are judged",
  () => {
    fc.assert(
      fc.property(edits, (list) => {
        judged(mutated(OWN, list));
      }),
      { numRuns: RUNS, seed: 19 },
    );
  },
  RUN_MS_MAX,
);

test(
  "any text at all is judged",
  () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 200 }), (text) => {
        judged(text);
      }),
      { numRuns: RUNS, seed: 20 },
    );
  },
  RUN_MS_MAX,
);

const present = existsSync(MANIFESTS);
if (!present) console.warn(`no manifests in ${MANIFESTS}: their mutations are skipped`);

describe.skipIf(!present)("Gateway API manifests", () => {
  const files = present ? readdirSync(MANIFESTS).filter((name) => name.endsWith(".yaml")) : [];
  const texts = files.map((name) => readFileSync(join(MANIFESTS, name), "utf8"));

  test("each is judged", () => {
    for (const text of texts) expect(judged(text)).toBe(true);
  });

  test(
    "mutations are judged",
    () => {
      fc.assert(
        fc.property(fc.constantFrom(...texts), edits, (text, list) => {
          judged(mutated(text.slice(0, 6000), list));
        }),
        { numRuns: RUNS, seed: 21 },
      );
    },
    RUN_MS_MAX,
  );
});

describe("bombs are refused quickly", () => {
  const rows = (count: number, row: (i: number) => string) =>
    Array.from({ length: count }, (_, i) => row(i)).join("\n");
  const aliases = rows(9, (i) =>
    i === 0
      ? "a0: &a0 [x, x, x]"
      : `a${i}: &a${i} [${Array(9)
          .fill(`*a${i - 1}`)
          .join(", ")}]`,
  );
  const route = (backend: string, count: number) =>
    "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: { name: a }\n" +
    "spec:\n  parentRefs: [{ kind: Service, name: a }]\n  rules:\n  - backendRefs:\n" +
    rows(count, () => `    - ${backend}`);
  test.each([
    ["many backends", route("{ name: a, port: 1 }", 20_000), "too_many"],
    ["many wrong backends", route("{ name: A, prt: x }", 10_000), "unknown_field"],
    [
      "many unknown fields",
      route(`{ ${rows(9999, (i) => `k${i}: 1,`).replaceAll("\n", " ")} }`, 1),
      "unknown_field",
    ],
    ["stray brackets", "]".repeat(100_000), "malformed_yaml"],
    ["nested keys", "? ".repeat(200_000), "too_deep"],
    ["aliases", aliases, "alias_bomb"],
    ["a loop of aliases", "a: &a [*a, *a]", "too_deep"],
    ["open brackets", "[".repeat(200_000), "too_deep"],
    ["nested lists", "- ".repeat(200_000), "too_deep"],
    ["deep indentation", rows(1200, (i) => `${" ".repeat(i)}a:`), "too_deep"],
    ["many keys", rows(50_000, (i) => `k${i}: v`), "missing_field"],
    ["one key often", rows(20_000, () => "k: v"), "duplicate_key"],
    ["many values", `[${"1,".repeat(120_000)}1]`, "wrong_type"],
  ])("%s", (_, text, code) => {
    const started = performance.now();
    const { issues } = parseSources([{ name: "f", text }]);
    expect(issues.map((issue) => issue.code)).toContain(code);
    expect(performance.now() - started).toBeLessThan(5000);
  });

  test.each(["a: b\n", "*a ", "[],", "'", "]", "---\n", "- "])("4 MiB of %j", (piece) => {
    const text = piece.repeat((4 * 1024 * 1024) / piece.length);
    const started = performance.now();
    expect(() => parseSources([{ name: "f", text }])).toThrow(/words/);
    expect(performance.now() - started).toBeLessThan(2000);
  });
});
