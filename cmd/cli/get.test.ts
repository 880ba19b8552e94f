import { expect, test } from "bun:test";
import type { Resource } from "../../src/config/resource.ts";
import { modes } from "./get.ts";

const cart: Resource = {
  apiVersion: "weft.dev/v1",
  kind: "Service",
  metadata: { name: "cart", namespace: "shop", labels: {} },
  spec: { ports: [{ port: 80 }, { port: 81 }] },
};

test("the modes of a service: one word where its ports agree", () => {
  const open = (...ports: number[]) =>
    modes(cart, (namespace, service, port) => {
      expect([namespace, service]).toEqual(["shop", "cart"]);
      return { mode: ports.includes(port) ? "PERMISSIVE" : "STRICT", by: undefined };
    });
  expect(open()).toBe("STRICT");
  expect(open(80, 81)).toBe("PERMISSIVE");
  expect(open(81)).toBe("80/STRICT,81/PERMISSIVE");
});
