import { expect, test } from "bun:test";
import { parseSources } from "./parse.ts";
import { toYaml } from "./to-yaml.ts";

test("what people read: defaults left out, ambiguous words quoted", () => {
  const text = `apiVersion: weft.dev/v1
kind: Service
metadata:
  name: "on"
  namespace: default
  labels:
    version: "1.0"
spec:
  ports:
    - port: 80
`;
  const [parsed] = parseSources([{ name: "f", text }]).resources;
  expect(parsed && toYaml(parsed.resource)).toBe(text);
});
