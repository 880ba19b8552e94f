/** The control plane's side of what workloads and the command line ask over HTTPS. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { X509Certificate } from "node:crypto";
import applies from "../../test/fixtures/contracts/apply.json" with { type: "json" };
import golden from "../../test/fixtures/contracts/membership.json" with { type: "json" };
import names from "../../test/fixtures/contracts/names.json" with { type: "json" };
import problems from "../../test/fixtures/contracts/problems.json" with { type: "json" };
import { createNkey } from "../identity/nkey.ts";
import { createSvidRequest } from "../identity/svid.ts";
import { type ApiFixture, startApi } from "./api.fixture.ts";

let api: ApiFixture;

beforeAll(async () => {
  api = await startApi();
});
afterAll(() => api.close());

test.each(applies.steps)("golden: an apply of $name", async (step) => {
  const { status, json } = await api.ask("/v1/apply", { body: step.request });
  expect<unknown>([status, json]).toEqual([200, step.answer]);
});

/** Texts become their beginning, numbers 0: what the same answer of another mesh shares. */
function shapeOf(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(shapeOf);
  if (typeof value === "number") return 0;
  if (typeof value === "string") return value.includes(" CERTIFICATE-") ? "PEM" : "text";
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, shapeOf(each)]));
}

function fill(request: object, values: Readonly<Record<string, string>>): object {
  return Object.fromEntries(
    Object.entries(request).map(([key, each]) => [key, values[String(each)] ?? each]),
  );
}

test("golden: a workload joins, renews and asks for access in these words", async () => {
  const service = (name: string, namespace: string, more = "") => `
apiVersion: weft.dev/v1
kind: Service
metadata: { name: ${name}, namespace: ${namespace} }
spec: { ports: [{ port: 80 }]${more} }
`;
  const documents = [
    ...["web", "cart", "orders"].map((name) => service(name, "default")),
    service("secret", "shop", ", visibility: [shop]"),
  ];
  const sources = [{ name: "a", text: documents.join("---") }];
  expect((await api.ask("/v1/apply", { body: { sources } })).status).toBe(200);
  const made = await api.ask("/v1/tokens", { body: { services: ["web"] } });
  const TOKEN = String(made.json["token"]);
  const NATSKEY = createNkey("user").publicKey;
  const values = { CSR: createSvidRequest().csrPem, NATSKEY };
  const joined = await api.ask(golden.join.path, {
    token: TOKEN,
    body: fill(golden.join.request, values),
  });
  expect([joined.status, shapeOf(joined.json)]).toEqual([200, shapeOf(golden.join.answer)]);
  expect(joined.json["keys"]).toEqual(golden.join.answer.keys);
  const peer = {
    ...{ serverName: "controlplane.weft", alpn: "", authorized: true, resumed: false },
    uris: ["spiffe://weft.local/ns/default/sa/web"],
  };
  const all = { ...values, INSTANCE: String(joined.json["instance"]) };
  for (const { path, request, answer } of [golden.svid, golden.access]) {
    const got = await api.ask(path, { token: "", peer, body: fill(request, all) });
    expect([got.status, shapeOf(got.json)]).toEqual([200, shapeOf(answer)]);
    expect(got.json["keys"]).toEqual(answer.keys);
  }
});

test("golden: a certificate carries these names", async () => {
  const { service, namespace, serviceAccount, spiffeId, dnsNames } = names;
  const made = await api.ask("/v1/tokens", { body: { namespace } });
  const csr = createSvidRequest().csrPem;
  const natsKey = createNkey("user").publicKey;
  const body = { csr, natsKey, service, namespace, serviceAccount };
  const { json } = await api.ask("/v1/join", { token: String(made.json["token"]), body });
  const { subject, subjectAltName } = new X509Certificate(String(json["chain"]));
  const expected = [`URI:${spiffeId}`, ...dnsNames.map((name) => `DNS:${name}`)].join(", ");
  expect([subject ?? "", subjectAltName]).toEqual(["", expected]);
});

test.each(problems.cases)("golden: the problem of $path", async (each) => {
  const answer = await api.ask(each.path, {
    ...(each.token === "none" ? { token: "" } : {}),
    ...(each.body === undefined ? {} : { body: each.body }),
  });
  expect(answer.status).toBe(each.problem.status);
  expect(answer.headers.get("content-type")).toBe(problems.type);
  expect(answer.json).toEqual(each.problem);
});
