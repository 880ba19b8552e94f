import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { normalizeTarget, PATH_LEVELS, type PathLevel } from "./normalize.ts";

/** For each target: NONE, BASE, MERGE_SLASHES, DECODE_AND_MERGE_SLASHES. `undefined` = refused. */
const CASES: readonly (readonly [string, ...(string | undefined)[]])[] = [
  ["/", "/", "/", "/", "/"],
  ["/a/b?c=/../d//", "/a/b?c=/../d//", "/a/b?c=/../d//", "/a/b?c=/../d//", "/a/b?c=/../d//"],
  ["/a/../b", "/a/../b", "/b", "/b", "/b"],
  ["/../../b", "/../../b", "/b", "/b", "/b"],
  ["/a/./b/.", "/a/./b/.", "/a/b/", "/a/b/", "/a/b/"],
  ["/a/b/..", "/a/b/..", "/a/", "/a/", "/a/"],
  ["/a%2e%2E/b", "/a%2e%2E/b", "/a../b", "/a../b", "/a../b"],
  ["/a/%2e%2E/b", "/a/%2e%2E/b", "/b", "/b", "/b"],
  ["/.well-known/x", "/.well-known/x", "/.well-known/x", "/.well-known/x", "/.well-known/x"],
  ["/a/...", "/a/...", "/a/...", "/a/...", "/a/..."],
  ["//a//b", "//a//b", "//a//b", "/a/b", "/a/b"],
  ["/a//../b", "/a//../b", "/a/b", "/a/b", "/a/b"],
  ["/a\\b", "/a\\b", "/a/b", "/a/b", "/a/b"],
  ["/a\\..\\b", "/a\\..\\b", "/b", "/b", "/b"],
  ["/a%2fb", "/a%2fb", "/a%2Fb", "/a%2Fb", "/a/b"],
  ["/a%5Cb", "/a%5Cb", "/a%5Cb", "/a%5Cb", "/a/b"],
  ["/a/%2f%2F..%2fb", "/a/%2f%2F..%2fb", "/a/%2F%2F..%2Fb", "/a/%2F%2F..%2Fb", "/a/b"],
  [
    "/admin/..%2fpublic",
    "/admin/..%2fpublic",
    "/admin/..%2Fpublic",
    "/admin/..%2Fpublic",
    "/public",
  ],
  ["/%61dmin", "/%61dmin", "/admin", "/admin", "/admin"],
  ["/%c3%b6", "/%c3%b6", "/%C3%B6", "/%C3%B6", "/%C3%B6"],
  ["/%252e%252e/%25", "/%252e%252e/%25", "/%252e%252e/%25", "/%252e%252e/%25", "/%252e%252e/%25"],
  ["/a;v=1/../b", "/a;v=1/../b", "/b", "/b", "/b"],
  ["/a;v=1/b;..", "/a;v=1/b;..", "/a;v=1/b;..", "/a;v=1/b;..", "/a;v=1/b;.."],
  ["/a/..;/b", "/a/..;/b", undefined, undefined, undefined],
  ["/a/..;x=y", "/a/..;x=y", undefined, undefined, undefined],
  ["/a/.;/b", "/a/.;/b", undefined, undefined, undefined],
  ["/a/%2e.%3b/b", "/a/%2e.%3b/b", undefined, undefined, undefined],
  ["/a/...;x", "/a/...;x", "/a/...;x", "/a/...;x", "/a/...;x"],
  ["/a?/..;/", "/a?/..;/", "/a?/..;/", "/a?/..;/", "/a?/..;/"],
  ["/a%00b", "/a%00b", undefined, undefined, undefined],
  ["/100%", "/100%", undefined, undefined, undefined],
  ["/%zz", "/%zz", undefined, undefined, undefined],
  ["/ok?x=%zz%00", "/ok?x=%zz%00", "/ok?x=%zz%00", "/ok?x=%zz%00", "/ok?x=%zz%00"],
  ["*", "*", "*", "*", "*"],
  ["host:443", "host:443", "host:443", "host:443", "host:443"],
  ["http://h", "http://h", "http://h", "http://h", "http://h"],
  ["http://h?a/../b", "http://h?a/../b", "http://h?a/../b", "http://h?a/../b", "http://h?a/../b"],
  [
    "http://h/a//../b?c",
    "http://h/a//../b?c",
    "http://h/a/b?c",
    "http://h/a/b?c",
    "http://h/a/b?c",
  ],
  ["http://h//", "http://h//", "http://h//", "http://h/", "http://h/"],
];

describe("each level", () => {
  for (const [target, ...expected] of CASES) {
    test(target, () => {
      const given = PATH_LEVELS.map((level) => normalizeTarget(target, level));
      expect(given).toEqual(expected);
    });
  }
});

const piece = fc.constantFrom(
  ...["/", "//", ".", "..", "\\", "%2f", "%2F", "%5c", "%2e", "%25", "%252e", "%41", "%c3", "a"],
  ...["b;c", ";", "%3b", "~", "%00", "%", "%4", "?", "?x=/../", "-", "_", "%7e"],
);
const target = fc.array(piece, { maxLength: 12 }).map((pieces) => `/${pieces.join("")}`);
const level = fc.constantFrom<PathLevel>(...PATH_LEVELS);

test("once is enough", () => {
  fc.assert(
    fc.property(target, level, (text, at) => {
      const once = normalizeTarget(text, at);
      if (once !== undefined) expect(normalizeTarget(once, at)).toBe(once);
    }),
    { numRuns: 3000 },
  );
});

test("nothing of what an attacker could hide behind is left at the default level", () => {
  fc.assert(
    fc.property(target, (text) => {
      const path = normalizeTarget(text, "DECODE_AND_MERGE_SLASHES")?.split("?")[0];
      if (path === undefined) return;
      expect(path[0]).toBe("/");
      expect(path).not.toMatch(/\/\/|\/\.\.?(\/|;|%3B|$)|\\|%2f|%5c|%2e|%00|%[a-f]|%.[a-f]/);
    }),
    { numRuns: 3000 },
  );
});

test("the query and everything that has no path stay as they came", () => {
  fc.assert(
    fc.property(target, level, (text, at) => {
      const query = text.indexOf("?");
      const given = normalizeTarget(text, at);
      if (given === undefined || query < 0) return;
      expect(given.endsWith(text.slice(query))).toBe(true);
    }),
  );
});
