import { expect, test } from "bun:test";
import { type RedirectFacts, redirectLocation } from "./redirect.ts";

const FACTS: RedirectFacts = {
  scheme: "http",
  host: "shop.example",
  port: 8080,
  target: "/old/x?q=1",
  prefix: "/old",
};

test.each([
  [{}, {}, "http://shop.example:8080/old/x?q=1"],
  [{}, { port: 80 }, "http://shop.example/old/x?q=1"],
  [{}, { port: 443, scheme: "https" }, "https://shop.example/old/x?q=1"],
  [{}, { port: 443 }, "http://shop.example:443/old/x?q=1"],
  [{ scheme: "https" }, {}, "https://shop.example/old/x?q=1"],
  [{ scheme: "http" }, { port: 443, scheme: "https" }, "http://shop.example/old/x?q=1"],
  [{ scheme: "https", port: 8443 }, {}, "https://shop.example:8443/old/x?q=1"],
  [{ scheme: "https", port: 443 }, {}, "https://shop.example/old/x?q=1"],
  [{ port: 80 }, {}, "http://shop.example/old/x?q=1"],
  [{ hostname: "new.example" }, {}, "http://new.example:8080/old/x?q=1"],
  [{ path: { type: "replaceFull", value: "/n" } }, { port: 80 }, "http://shop.example/n?q=1"],
  [{ path: { type: "replacePrefix", value: "/n" } }, { port: 80 }, "http://shop.example/n/x?q=1"],
] as const)("%j with %j goes to %s", (redirect, facts, expected) => {
  const given = { status: 302, ...redirect } as const;
  expect(redirectLocation(given, { ...FACTS, ...facts } as RedirectFacts)).toBe(expected);
});
