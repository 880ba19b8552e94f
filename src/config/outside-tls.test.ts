import { expect, test } from "bun:test";
import { rootCertificates } from "node:tls";
import { parseSources } from "./parse.ts";
import { toYaml } from "./to-yaml.ts";

const [first = "", second = ""] = rootCertificates;

function policy(tls: object): string {
  const target = { service: "api", port: 443 };
  const metadata = { name: "api" };
  const kind = "TrafficPolicy";
  return JSON.stringify({ apiVersion: "weft.dev/v1", kind, metadata, spec: { target, tls } });
}

/** `path code: reason` of every issue. */
function issues(tls: object): string[] {
  const parsed = parseSources([{ name: "f", text: policy(tls) }]);
  return parsed.issues.map(({ path, code, reason }) => `${path} ${code}: ${reason}`);
}

test("what a policy may say about TLS comes back as it was said", () => {
  const tls = {
    mode: "SIMPLE",
    sni: "api.example.com",
    caCertificates: `# two of them\n${first}\n${second}\n`,
    subjectAltNames: ["api.example.com", "192.0.2.7", "2001:db8::7"],
  };
  const { resources } = parseSources([{ name: "f", text: policy(tls) }]);
  const text = toYaml(resources[0]!.resource);
  expect(text).toContain(`    -----BEGIN CERTIFICATE-----\n`);
  const again = parseSources([{ name: "f", text }]);
  expect(again.issues).toEqual([]);
  expect(again.resources[0]?.resource.spec).toMatchObject({ tls });
});

const CERTIFICATES = "spec.tls.caCertificates invalid_value: ";

test.each([
  [{}, "spec.tls.mode missing_field: mode is required"],
  [{ mode: "ISTIO_MUTUAL" }, "spec.tls.mode invalid_value: must be one of DISABLE, SIMPLE, MUTUAL"],
  [{ sni: "*.example.com" }, "spec.tls.sni invalid_hostname: is not a host name"],
  [{ sni: "192.0.2.7" }, "spec.tls.sni invalid_hostname: is an address, and only names are sent"],
  [
    { subjectAltNames: ["spiffe://x/y"] },
    "spec.tls.subjectAltNames[0] invalid_hostname: is neither a host name nor an IP address",
  ],
  [{ subjectAltNames: [] }, "spec.tls.subjectAltNames invalid_value: the list is empty"],
  [{ caCertificates: "/etc/ca.pem" }, `${CERTIFICATES}is not a list of certificates`],
  [
    { caCertificates: first.replace(/\n[A-Za-z0-9+/]{9}/, "\nAAAAAAAAA") },
    `${CERTIFICATES}is not a list of certificates`,
  ],
  [{ caCertificates: `${first}\n-----BEGIN X` }, `${CERTIFICATES}is not a list of certificates`],
  [
    { caCertificates: `${first}\n-----BEGIN PRIVATE KEY-----\nMIG\n-----END PRIVATE KEY-----` },
    `${CERTIFICATES}holds a private key`,
  ],
  [{ caCertificates: `${first}\n`.repeat(20) }, `${CERTIFICATES}is longer than 12 KiB`],
  [{ privateKey: "key.pem" }, "spec.tls.privateKey invalid_path: is not the path of a file"],
  [
    { privateKey: "-----BEGIN PRIVATE KEY-----" },
    "spec.tls.privateKey invalid_path: is not the path of a file",
  ],
  [{ caCrl: "x" }, "spec.tls.caCrl unknown_field: there is no field"],
])("%#: what cannot be meant is refused", (tls, expected) => {
  const given = "mode" in tls || Object.keys(tls).length === 0 ? tls : { mode: "SIMPLE", ...tls };
  const found = issues(given);
  expect(found).toHaveLength(1);
  expect(found[0]).toStartWith(expected);
});

test.each([
  ["localhost", "is not a full host name"],
  ["192.0.2.7", "is not a full host name"],
  ["*.example.com", "is not a host name"],
  ["cart.default.mesh", "is a name that the mesh gives itself"],
  ["x.svc.cluster.local", "is a name that the mesh gives itself"],
])("%p cannot be a host of a service", (host, reason) => {
  const spec = { ports: [{ port: 1 }], hosts: [host] };
  const service = { apiVersion: "weft.dev/v1", kind: "Service", metadata: { name: "a" }, spec };
  const { issues: found } = parseSources([{ name: "f", text: JSON.stringify(service) }]);
  expect(found.map((issue) => `${issue.path}: ${issue.reason}`)).toEqual([
    `spec.hosts[0]: ${reason}`,
  ]);
});
