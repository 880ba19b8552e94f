import { expect, test } from "bun:test";
import { unreadBackends } from "./backends.ts";

const backend = (service: string, invalid?: true) => ({
  ...{ namespace: "default", service, port: 80, weight: 1 },
  ...(invalid === undefined ? {} : { invalid }),
});

test("backends of routes that may not be read yet, each once", () => {
  const routes = {
    matches: [],
    rules: [
      { name: "a", backends: [backend("cart"), backend("orders")] },
      { name: "b", backends: [backend("orders"), backend("gone", true), backend("known")] },
    ],
  };
  const documents = new Map<string, object>([
    ["out.default.cart", { ports: [{ port: 80, routes }, { port: 81 }] }],
    ["out.default.odd", {}],
    ["mesh", {}],
  ]);
  expect(unreadBackends(documents, ["out.default.known"])).toEqual([
    { namespace: "default", service: "orders" },
  ]);
});
