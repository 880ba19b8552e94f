import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { RouteMatchDocument } from "../snapshot/document.ts";
import { compileMatches, firstMatch, type RouteFacts } from "./match.ts";

const ANY: RouteMatchDocument = {
  hostnames: [],
  path: { type: "prefix", value: "/" },
  headers: [],
  query: [],
  rule: 0,
};

function facts(target: string, more: Partial<RouteFacts> & { headers?: object } = {}): RouteFacts {
  const headers = new Map(Object.entries(more.headers ?? {}));
  return {
    method: more.method ?? "GET",
    target,
    authority: more.authority ?? "reviews",
    field: (name) => headers.get(name),
  };
}

function matches(match: Partial<RouteMatchDocument>, request: RouteFacts): boolean {
  return firstMatch(compileMatches([{ ...ANY, ...match }], ["rule"]), request) !== undefined;
}

const exact = (value: string) => ({ path: { type: "exact", value } as const });
const prefix = (value: string) => ({ path: { type: "prefix", value } as const });

describe("path", () => {
  test.each([
    [exact("/one"), "/one", true],
    [exact("/one"), "/one?x=1", true],
    [exact("/one"), "/one/", false],
    [exact("/one"), "/ONE", false],
    [exact("/one"), "/on", false],
    [exact("/one"), "/one/two", false],
    [exact("/one/"), "/one/", true],
    [exact("/"), "/", true],
    [prefix("/"), "/", true],
    [prefix("/"), "/anything", true],
    [prefix("/"), "/?q", true],
    [prefix("/foo"), "/foo", true],
    [prefix("/foo"), "/foo/", true],
    [prefix("/foo"), "/foo/bar", true],
    [prefix("/foo"), "/foo?bar", true],
    [prefix("/foo"), "/foobar", false],
    [prefix("/foo"), "/fo", false],
    [prefix("/foo"), "/?a=/foo", false],
    [prefix("/foo/"), "/foo", true],
    [prefix("/foo/"), "/foo/bar", true],
    [prefix("/foo/"), "/foobar", false],
    [prefix("/foo"), "http://host:80/foo/bar", true],
    [prefix("/foo"), "http://host", false],
    [prefix("/"), "http://host?x=1", true],
    [prefix("/"), "*", true],
    [exact("/foo"), "*", false],
  ] as const)("%j %s -> %p", (match, target, expected) => {
    expect(matches(match, facts(target))).toBe(expected);
  });
});

describe("header, query, method, host", () => {
  const header = (name: string, value: string) => ({ headers: [{ name, value }] });
  const query = (...pairs: (readonly [string, string])[]) => ({
    query: pairs.map(([name, value]) => ({ name, value })),
  });
  const hosts = (...hostnames: string[]) => ({ hostnames });
  test.each([
    [header("Version", "one"), facts("/", { headers: { version: "one" } }), true],
    [header("version", "one"), facts("/", { headers: { version: "One" } }), false],
    [header("version", "one"), facts("/"), false],
    [{ method: "POST" }, facts("/", { method: "POST" }), true],
    [{ method: "POST" }, facts("/"), false],
    [query(["a", "1"]), facts("/?a=1"), true],
    [query(["a", "1"]), facts("/?b=2&a=1&c"), true],
    [query(["a", "1"]), facts("/?a=12"), false],
    [query(["a", "1"]), facts("/?aa=1"), false],
    [query(["a", "1"]), facts("/?A=1"), false],
    [query(["a", "1"]), facts("/"), false],
    [query(["a", "1"]), facts("/?"), false],
    [query(["a", ""]), facts("/?a"), true],
    [query(["a", ""]), facts("/?a="), true],
    [query(["a", "1"], ["b", "2"]), facts("/?b=2&a=1"), true],
    [query(["a", "1"], ["b", "2"]), facts("/?a=1"), false],
    [query(["a", "1"]), facts("/?a=2&a=1"), false],
    [query(["a", "x y"]), facts("/?a=x%20y"), true],
    [query(["a", "x y"]), facts("/?a=x+y"), true],
    [query(["a", "x"]), facts("/?a=%zz"), false],
    [query(["ä", "ö"]), facts("/?%C3%A4=%c3%b6"), true],
    [query(["a", "1"]), facts("http://h/?a=1"), true],
    [hosts("a.example"), facts("/", { authority: "a.example" }), true],
    [hosts("A.Example"), facts("/", { authority: "a.example:8080" }), true],
    [hosts("a.example"), facts("/", { authority: "a.example." }), true],
    [hosts("a.example"), facts("/", { authority: "b.example" }), false],
    [hosts("*.example"), facts("/", { authority: "b.a.example" }), true],
    [hosts("*.example"), facts("/", { authority: "example" }), false],
    [hosts("*.example"), facts("/", { authority: ".example" }), false],
    [hosts("x", "[::1]"), facts("/", { authority: "[::1]:80" }), true],
  ] as const)("case %#", (match, request, expected) => {
    expect(matches(match, request)).toBe(expected);
  });
});

test("the first match wins, and a match without its rule is left out", () => {
  const table = compileMatches(
    [
      { ...ANY, ...prefix("/a/b"), rule: 1 },
      { ...ANY, rule: 7 },
      { ...ANY, rule: 0 },
    ],
    ["all", "deep"],
  );
  expect(firstMatch(table, facts("/a/b/c"))?.rule).toBe("deep");
  expect(firstMatch(table, facts("/a"))?.rule).toBe("all");
});

test("a prefix covers exactly the paths that continue with a segment", () => {
  const segment = fc.stringMatching(/^[a-z0-9._~-]{1,6}$/);
  const path = fc.array(segment, { maxLength: 4 }).map((parts) => `/${parts.join("/")}`);
  fc.assert(
    fc.property(path, path, (wanted, asked) => {
      const left = wanted.split("/").filter((part) => part !== "");
      const right = asked.split("/");
      const expected = left.every((part, i) => right[i + 1] === part);
      expect(matches(prefix(wanted), facts(asked))).toBe(expected);
    }),
  );
});
