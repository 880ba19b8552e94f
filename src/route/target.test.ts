import { expect, test } from "bun:test";
import { editPath, originForm, trimPrefix } from "./target.ts";

test.each([
  // The table of HTTPPathModifier in the Gateway API, then cases of our own.
  ["/foo/bar", "/foo", "/xyz", "/xyz/bar"],
  ["/foo/bar", "/foo", "/xyz/", "/xyz/bar"],
  ["/foo/bar", "/foo/", "/xyz", "/xyz/bar"],
  ["/foo/bar", "/foo/", "/xyz/", "/xyz/bar"],
  ["/foo", "/foo", "/xyz", "/xyz"],
  ["/foo/", "/foo", "/xyz", "/xyz/"],
  ["/foo/bar", "/foo", "", "/bar"],
  ["/foo/", "/foo", "", "/"],
  ["/foo", "/foo", "", "/"],
  ["/foo/", "/foo", "/", "/"],
  ["/foo", "/foo", "/", "/"],
  ["/foo?q=1", "/foo", "/", "/?q=1"],
  ["/foo/bar?q=/foo", "/foo", "/xyz", "/xyz/bar?q=/foo"],
  ["/", "/", "/api", "/api/"],
  ["/x", "/", "/api", "/api/x"],
  ["/x", "/", "/", "/x"],
  ["http://h:80/foo/bar", "/foo", "/xyz", "/xyz/bar"],
])("%s with prefix %s replaced by %j is %s", (target, prefix, value, expected) => {
  expect(editPath(target, { type: "replacePrefix", value }, trimPrefix(prefix))).toBe(expected);
});

test.each([
  ["/a/b", "/x", "/x"],
  ["/a/b?q", "/x", "/x?q"],
  ["/a/b", "x", "/x"],
  ["/a?q", "", "/?q"],
])("%s replaced by %j is %s", (target, value, expected) => {
  expect(editPath(target, { type: "replaceFull", value }, "/a")).toBe(expected);
});

test.each([
  ["/a?b", "/a?b"],
  ["http://h/a?b", "/a?b"],
  ["http://h", "/"],
  ["http://h?x", "/?x"],
  ["*", "/"],
  ["host:443", "/"],
  ["", "/"],
])("origin form of %j is %s", (target, expected) => {
  expect(originForm(target)).toBe(expected);
});
