import { describe, expect, test } from "bun:test";
import { Failure } from "../error.ts";
import { parseSources } from "./parse.ts";
import type { Issue } from "./resource.ts";

function issuesOf(text: string): Issue[] {
  return parseSources([{ name: "f.yaml", text }]).issues;
}

function spot(issue: Issue | undefined): string {
  return issue === undefined
    ? "no issue"
    : `${issue.line}:${issue.column} ${issue.path} ${issue.code} (${issue.value}) ${issue.fix}`;
}

const SERVICE = `apiVersion: weft.dev/v1
kind: Service
metadata: { name: cart }
spec:
  ports: [{ port: 8080, protocol: http }]
`;

const ROUTE = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: r }
spec:
  parentRefs: [{ kind: Service, name: cart }]
  rules:
    - `;

interface Bad {
  readonly name: string;
  readonly text: string;
  /** `line:column path code (value) fix` of the first issue. */
  readonly spot: string;
}

const swap = (from: string, to: string) => SERVICE.replace(from, to);
const NAME_FIX =
  "use at most 63 lower-case letters, digits and dashes, with a letter or digit at both ends";

const documents: readonly Bad[] = [
  {
    name: "unknown field with a guess",
    text: swap("protocol", "protocl"),
    spot: "5:25 spec.ports[0].protocl unknown_field (http) did you mean protocol?",
  },
  {
    name: "unknown field without a guess",
    text: `${SERVICE}  zebra: 1\n`,
    spot:
      "6:3 spec.zebra unknown_field (1) " +
      "remove it; fields here are ports, selector, subsets, hosts, visibility",
  },
  {
    name: "unknown field of metadata",
    text: swap("name: cart", "name: cart, annotations: {}"),
    spot:
      "3:25 metadata.annotations unknown_field ({}) " +
      "remove it; fields here are name, namespace, labels",
  },
  {
    name: "unknown kind",
    text: swap("kind: Service", "kind: Servce"),
    spot: "2:7 kind unknown_kind (Servce) did you mean Service?",
  },
  {
    name: "kind of another apiVersion",
    text: swap("weft.dev/v1", "v1"),
    spot: "1:13 apiVersion unknown_version (v1) write apiVersion: weft.dev/v1",
  },
  {
    name: "no kind",
    text: "apiVersion: weft.dev/v1\n",
    spot:
      '1:1  missing_field ({"apiVersion":"weft.dev/v1"}) ' +
      "add kind: one of Mesh, Service, Workload, TrafficPolicy, PeerAuth, HTTPRoute, Process",
  },
  {
    name: "no spec",
    text: "apiVersion: weft.dev/v1\nkind: Service\nmetadata: { name: a }\n",
    spot: "1:1 spec missing_field () add spec",
  },
  {
    name: "number as text",
    text: swap("8080", '"8080"'),
    spot: "5:19 spec.ports[0].port wrong_type (8080) remove the quotes: 8080",
  },
  {
    name: "text as number",
    text: swap("cart", "1.10"),
    spot: '3:19 metadata.name wrong_type (1.10) quote it: "1.10"',
  },
  {
    name: "text as boolean",
    text: swap("name: cart", "name: cart, labels: { canary: true }"),
    spot: '3:43 metadata.labels.canary wrong_type (true) quote it: "true"',
  },
  {
    name: "map where a list belongs",
    text: swap("[{ port: 8080, protocol: http }]", "{ port: 8080 }"),
    spot:
      '5:10 spec.ports wrong_type ({"port":8080}) ' + "write it as `- item` lines or [item, item]",
  },
  {
    name: "list where a map belongs",
    text: swap("{ name: cart }", "[cart]"),
    spot: '3:11 metadata wrong_type (["cart"]) write it as `field: value` lines',
  },
  {
    name: "empty value",
    text: swap("[{ port: 8080, protocol: http }]", ""),
    spot: "5:10 spec.ports empty_value () give it a value or remove the line",
  },
  {
    name: "port out of range",
    text: swap("8080", "70000"),
    spot: "5:19 spec.ports[0].port invalid_value (70000) give a port between 1 and 65535",
  },
  {
    name: "port of weft itself",
    text: swap("8080", "17006"),
    spot:
      "5:19 spec.ports[0].port reserved_port (17006) " +
      "choose a port other than 17001, 17006, 17010, 17020, 17053, 17222",
  },
  {
    name: "name with capitals",
    text: swap("cart", "Cart"),
    spot: `3:19 metadata.name invalid_name (Cart) ${NAME_FIX}`,
  },
  {
    name: "name with dots for something that is dialled",
    text: swap("cart", "cart.v1"),
    spot: `3:19 metadata.name invalid_name (cart.v1) ${NAME_FIX}`,
  },
  {
    name: "label name",
    text: swap("name: cart", 'name: cart, labels: { "a b": c }'),
    spot:
      '3:35 metadata.labels["a b"] invalid_label (c) ' +
      "use [prefix/]name with letters, digits, '-', '_' and '.'",
  },
  {
    name: "label value",
    text: swap("name: cart", 'name: cart, labels: { a: "b c" }'),
    spot:
      "3:38 metadata.labels.a invalid_label (b c) " +
      "use at most 63 letters, digits, '-', '_' and '.'",
  },
  {
    name: "duplicate key",
    text: swap("name: cart", "name: cart, name: b"),
    spot: "3:25 metadata.name duplicate_key (name) keep one of the two",
  },
  {
    name: "duplicate document",
    text: `${SERVICE}---\n${SERVICE}`,
    spot:
      "9:19 metadata.name duplicate_document (cart) " +
      "keep one of the two, or give one another name",
  },
  {
    name: "merge key",
    text: `${SERVICE}  <<: { a: b }\n`,
    spot: '6:3 spec["<<"] merge_key (<<) write the fields out',
  },
  {
    name: "key that JavaScript would swallow",
    text: `${SERVICE}  __proto__: { a: b }\n`,
    spot: "6:3 spec.__proto__ forbidden_key (__proto__) rename the key",
  },
  {
    name: "scalar document",
    text: "hello",
    spot: "1:1  wrong_type (hello) start it with apiVersion, kind and metadata",
  },
  {
    name: "tab as indentation",
    text: "a:\n\tb: c\n",
    spot: "2:1  malformed_yaml () indent with spaces instead of tabs",
  },
  {
    name: "unknown alias",
    text: "a: *b\n",
    spot: "1:4 a malformed_yaml () define the anchor (&name) before using it (*name)",
  },
  {
    name: "tag",
    text: swap("cart", "!secret cart"),
    spot: "3:19  malformed_yaml () remove the tag; values need none",
  },
  {
    name: "Mesh with another name",
    text: "apiVersion: weft.dev/v1\nkind: Mesh\nmetadata: { name: main }\n",
    spot: "3:19 metadata.name invalid_name (main) name it mesh",
  },
  {
    name: "Mesh in a namespace",
    text: "apiVersion: weft.dev/v1\nkind: Mesh\nmetadata: { name: mesh, namespace: a }\n",
    spot: "3:25 metadata.namespace unknown_field (a) remove it; fields here are name, labels",
  },
];

const rules: readonly Bad[] = [
  {
    name: "negative weight",
    text: "backendRefs: [{ name: a, port: 1, weight: -1 }]",
    spot:
      "7:49 spec.rules[0].backendRefs[0].weight invalid_value (-1) " +
      "give a weight between 0 and 1000000",
  },
  {
    name: "weight with a fraction",
    text: "backendRefs: [{ name: a, port: 1, weight: 0.5 }]",
    spot:
      "7:49 spec.rules[0].backendRefs[0].weight invalid_value (0.5) " +
      "give a weight between 0 and 1000000",
  },
  {
    name: "misspelt field of a backend",
    text: "backendRefs: [{ name: a, port: 1, wieght: 1 }]",
    spot: "7:41 spec.rules[0].backendRefs[0].wieght unknown_field (1) did you mean weight?",
  },
  {
    name: "backend without port",
    text: "backendRefs: [{ name: a }]",
    spot: "7:21 spec.rules[0].backendRefs[0].port missing_field () add the port of the service",
  },
  {
    name: "subset without its group",
    text: "backendRefs: [{ kind: Subset, name: a.v1, port: 1 }]",
    spot: "7:21 spec.rules[0].backendRefs[0].group invalid_value () add group: weft.dev",
  },
  {
    name: "subset without service",
    text: "backendRefs: [{ group: weft.dev, kind: Subset, name: v1, port: 1 }]",
    spot:
      "7:60 spec.rules[0].backendRefs[0].name invalid_name (v1) " +
      "write it as <service>.<subset>",
  },
  {
    name: "regular expression",
    text: "matches: [{ path: { type: RegularExpression, value: /a } }]",
    spot:
      "7:33 spec.rules[0].matches[0].path.type unsupported (RegularExpression) " +
      "use Exact, or PathPrefix for paths",
  },
  {
    name: "path with dot segments",
    text: "matches: [{ path: { value: /a/../b } }]",
    spot:
      "7:34 spec.rules[0].matches[0].path.value invalid_path (/a/../b) " +
      "remove //, /./, /../ and encoded slashes",
  },
  {
    name: "method in lower case",
    text: "matches: [{ method: get }]",
    spot: "7:27 spec.rules[0].matches[0].method invalid_value (get) did you mean GET?",
  },
  {
    name: "header name with a colon",
    text: 'matches: [{ headers: [{ name: "a:", value: b }] }]',
    spot:
      "7:37 spec.rules[0].matches[0].headers[0].name invalid_header (a:) " +
      "use letters, digits and dashes, without colon or spaces",
  },
  {
    name: "header value with a line break",
    text:
      "filters: [{ type: RequestHeaderModifier, " +
      'requestHeaderModifier: { set: [{ name: a, value: "b\\r\\nc: d" }] } }]',
    spot:
      "7:97 spec.rules[0].filters[0].requestHeaderModifier.set[0].value invalid_header (b c: d) " +
      "use printable ASCII without line breaks or surrounding spaces",
  },
  {
    name: "header that frames the message",
    text:
      "filters: [{ type: RequestHeaderModifier, " +
      "requestHeaderModifier: { remove: [Content-Length] } }]",
    spot:
      "7:82 spec.rules[0].filters[0].requestHeaderModifier.remove[0] " +
      "invalid_header (Content-Length) " +
      "remove it; to change Host use a URLRewrite filter with hostname",
  },
  {
    name: "filter weft does not have",
    text: "filters: [{ type: RequestMirror }]",
    spot:
      "7:25 spec.rules[0].filters[0].type unsupported (RequestMirror) use RequestHeaderModifier, " +
      "ResponseHeaderModifier, URLRewrite, RequestRedirect",
  },
  {
    name: "rewrite and redirect together",
    text:
      "filters: [{ type: URLRewrite, urlRewrite: {} }, " +
      "{ type: RequestRedirect, requestRedirect: {} }]",
    spot:
      '7:16 spec.rules[0].filters invalid_filter ([{"type":"URLRewrite","urlRewrite":{}},' +
      '{"type":"RequestRedirect","requestRedire…) keep one of the two',
  },
  {
    name: "prefix rewrite under an exact match",
    text:
      "filters: [{ type: URLRewrite, urlRewrite: { path: " +
      "{ type: ReplacePrefixMatch, replacePrefixMatch: /b } } }]\n" +
      "      matches: [{ path: { type: Exact, value: /a } }]",
    spot:
      '7:17 spec.rules[0].filters[0] invalid_filter ({"type":"URLRewrite","urlRewrite":{"path":' +
      '{"type":"ReplacePrefixMatch","replace…) match by PathPrefix only, or use ReplaceFullPath',
  },
  {
    name: "redirect status",
    text: "filters: [{ type: RequestRedirect, requestRedirect: { statusCode: 200 } }]",
    spot:
      "7:73 spec.rules[0].filters[0].requestRedirect.statusCode invalid_value (200) " +
      "leave it out for 302",
  },
  {
    name: "duration with a fraction",
    text: "timeouts: { request: 1.5s }",
    spot:
      "7:28 spec.rules[0].timeouts.request invalid_duration (1.5s) " +
      "write it like 500ms, 10s, 1m30s or 0s (no fractions, no days)",
  },
  {
    name: "duration without unit",
    text: "timeouts: { request: 10 }",
    spot: '7:28 spec.rules[0].timeouts.request wrong_type (10) quote it: "10"',
  },
  {
    name: "attempt longer than the request",
    text: "timeouts: { request: 1s, backendRequest: 1001ms }",
    spot:
      "7:48 spec.rules[0].timeouts.backendRequest invalid_value (1001ms) " +
      "use at most 1s, or raise timeouts.request",
  },
  {
    name: "header matched twice",
    text: "matches: [{ headers: [{ name: a, value: b }, { name: A, value: c }] }]",
    spot: "7:60 spec.rules[0].matches[0].headers[1].name duplicate_name (A) keep one of the two",
  },
];

describe("a document is refused at its place", () => {
  test.each(documents.map((bad) => [bad.name, bad] as const))("%s", (_, bad) => {
    expect(spot(issuesOf(bad.text)[0])).toBe(bad.spot);
  });
});

describe("a rule is refused at its place", () => {
  test.each(rules.map((bad) => [bad.name, bad] as const))("%s", (_, bad) => {
    expect(spot(issuesOf(ROUTE + bad.text)[0])).toBe(bad.spot);
  });
});

test("a route cannot be attached to a Gateway, nor across namespaces", () => {
  const parents = (text: string) => ROUTE.replace("{ kind: Service, name: cart }", text);
  const rule = "backendRefs: [{ name: a, port: 1 }]";
  expect(spot(issuesOf(parents("{ name: edge }") + rule)[0])).toBe(
    '5:16 spec.parentRefs[0] unsupported ({"name":"edge"}) ' +
      'write {group: "", kind: Service, name: …}',
  );
  const foreign = parents("{ kind: Service, name: a, namespace: shop }") + rule;
  expect(spot(issuesOf(foreign)[0])).toBe(
    "5:53 spec.parentRefs[0].namespace unsupported (shop) put the route into namespace shop",
  );
});

test("all issues of all documents are told at once, good documents come through", () => {
  const text = [swap("8080", "0"), SERVICE, swap("kind: Service", "kind: X")].join("---\n");
  const { resources, issues } = parseSources([{ name: "a", text }]);
  expect(issues.map(({ line, code }) => [line, code])).toEqual([
    [5, "invalid_value"],
    [14, "unknown_kind"],
  ]);
  expect(resources).toHaveLength(1);
});

test("JSON, comments, empty documents and a byte order mark are fine", () => {
  const json = JSON.stringify({
    apiVersion: "weft.dev/v1",
    kind: "Service",
    metadata: { name: "a" },
    spec: { ports: [{ port: 1 }] },
  });
  for (const text of [json, `\uFEFF${json}`, `---\n---\n# nothing\n---\n${SERVICE}---\n`]) {
    const { resources, issues } = parseSources([{ name: "a", text }]);
    expect(issues).toEqual([]);
    expect(resources).toHaveLength(1);
  }
  expect(parseSources([{ name: "a", text: "" }])).toEqual({ resources: [], issues: [] });
});

test("anchors may repeat a block, and places inside it are those of the block", () => {
  const text = SERVICE.replace("{ name: cart }", "{ name: cart, labels: &l { a: b } }");
  const good = parseSources([{ name: "a", text: `${text}  selector: { labels: *l }\n` }]);
  expect(good.issues).toEqual([]);
  const bad = text.replace("a: b", "a: 1");
  expect(spot(issuesOf(`${bad}  selector: { labels: *l }\n`)[1])).toStartWith(
    "3:41 spec.selector.labels.a wrong_type (1)",
  );
});

test("text above 4 MiB is a failure with status 413", () => {
  const half = "#".repeat(2 * 1024 * 1024 + 1);
  const sources = [
    { name: "a", text: half },
    { name: "b", text: half },
  ];
  expect(() => parseSources(sources)).toThrow(
    expect.objectContaining({ code: "too_large", status: 413, exit: 3 }),
  );
  expect(() => parseSources(sources)).toThrow(Failure);
});

test("positions of a resource can be asked for later", () => {
  const [parsed] = parseSources([{ name: "a", text: SERVICE }]).resources;
  expect(parsed?.at(["spec", "ports", 0, "port"])).toEqual({ line: 5, column: 19 });
  expect(parsed?.at(["spec", "ports", 0, "nothing"])).toEqual({ line: 5, column: 11 });
});

const peerAuth = (spec: string) =>
  `apiVersion: weft.dev/v1\nkind: PeerAuth\nmetadata: { name: a }\nspec: ${spec}\n`;

test.each([
  ["{ mtls: { mode: STRICT } }", "no issue"],
  ["{ target: { service: cart, port: 80 }, mtls: { mode: PERMISSIVE } }", "no issue"],
  [
    "{ mtls: { mode: DISABLE } }",
    "4:23 spec.mtls.mode unsupported (DISABLE) write PERMISSIVE to take plaintext beside it",
  ],
  [
    "{ mtls: { mode: disable } }",
    "4:23 spec.mtls.mode unsupported (disable) write PERMISSIVE to take plaintext beside it",
  ],
  [
    "{ mtls: { mode: UNSET } }",
    "4:23 spec.mtls.mode unsupported (UNSET) remove this PeerAuth, or mtls of Mesh",
  ],
  ["{ mtls: { mode: strict } }", "4:23 spec.mtls.mode invalid_value (strict) did you mean STRICT?"],
  [
    "{ mtls: { mode: permissive } }",
    "4:23 spec.mtls.mode invalid_value (permissive) did you mean PERMISSIVE?",
  ],
  [
    "{ mtls: { mode: constructor } }",
    "4:23 spec.mtls.mode invalid_value (constructor) use STRICT, PERMISSIVE",
  ],
  ["{ mtls: {} }", "4:15 spec.mtls.mode missing_field () add mode"],
  ["{}", "4:7 spec.mtls missing_field () add mtls"],
  ["{ mtls: { mode: } }", "4:23 spec.mtls.mode empty_value () give it a value or remove the line"],
  ["{ mtls: { mode: 1 } }", "4:23 spec.mtls.mode invalid_value (1) use STRICT, PERMISSIVE"],
  [
    "{ target: { port: 80 }, mtls: { mode: STRICT } }",
    "4:17 spec.target.service missing_field () add service",
  ],
  [
    "{ target: {}, mtls: { mode: STRICT } }",
    "4:17 spec.target.service missing_field () add service",
  ],
  [
    "{ selector: {}, mtls: { mode: STRICT } }",
    "4:9 spec.selector unknown_field ({}) remove it; fields here are target, mtls",
  ],
])("PeerAuth %s", (spec, expected) => {
  expect(spot(issuesOf(peerAuth(spec))[0])).toBe(expected);
});
