import { expect, test } from "bun:test";
import { closest } from "./suggest.ts";

test.each([
  ["protocl", ["port", "protocol"], "protocol"],
  ["wieght", ["weight", "name"], "weight"],
  ["get", ["GET", "HEAD"], "GET"],
  ["Servce", ["Service", "Mesh"], "Service"],
  ["v2", ["v1"], "v1"],
  ["zebra", ["ports", "selector"], undefined],
  ["x".repeat(100_000), ["ports"], undefined],
  ["", ["a"], "a"],
  ["anything", [], undefined],
])("%.20s", (typed, known, expected) => {
  expect(closest(typed, known)).toBe(expected as string);
});
