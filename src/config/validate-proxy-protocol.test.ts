import { expect, test } from "bun:test";
import { parseSources } from "./parse.ts";
import { validateSet } from "./validate.ts";

const PORTS = "{ port: 80 }, { port: 81, protocol: tcp }, { port: 82, protocol: http }";
const CART = `apiVersion: weft.dev/v1
kind: Service
metadata: { name: cart }
spec: { ports: [${PORTS}] }
---
apiVersion: weft.dev/v1
kind: TrafficPolicy
metadata: { name: cart }
spec: `;

function issues(spec: string): string[] {
  const { resources, issues } = parseSources([{ name: "f", text: CART + spec }]);
  const set = resources.map(({ resource }) => resource);
  return [...issues, ...validateSet(set, resources, { lenient: false })].map(
    ({ path, code, reason }) => `${path} ${code}: ${reason}`,
  );
}

const AT = "spec.proxyProtocol.version";
const SHARED = "requests of many callers share its connections, and a PROXY header names one";

test.each([
  ["{ target: { service: cart, port: 81 }, proxyProtocol: { version: V2 } }", []],
  [
    "{ target: { service: cart, port: 82 }, proxyProtocol: { version: V1 } }",
    [`${AT} wrong_protocol: port 82 is declared http: ${SHARED}`],
  ],
  [
    "{ target: { service: cart }, proxyProtocol: { version: V1 } }",
    [
      `${AT} wrong_protocol: port 80 may turn out to speak HTTP: ${SHARED}`,
      `${AT} wrong_protocol: port 82 is declared http: ${SHARED}`,
    ],
  ],
  [
    "{ target: { service: cart, port: 81 }, proxyProtocol: {} }",
    [`${AT} missing_field: version is required`],
  ],
  [
    "{ target: { service: cart, port: 81 }, proxyProtocol: { version: 2 } }",
    [`${AT} invalid_value: must be one of V1, V2`],
  ],
] as const)("%#: a PROXY header is for ports of opaque bytes", (spec, expected) => {
  expect(issues(spec)).toEqual([...expected]);
});
