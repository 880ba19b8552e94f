import { expect, test } from "bun:test";
import * as v from "valibot";
import { duration, durationMs, headerValue, hostPattern, labels } from "./fields.ts";

test.each([
  ["0s", 0],
  ["500ms", 500],
  ["10s", 10_000],
  ["1m30s", 90_000],
  ["1h2m3s4ms", 3_723_004],
  ["99999h", 359_996_400_000],
])("%s is %d ms", (text, expected) => {
  expect(v.is(duration, text)).toBe(true);
  expect(durationMs(text)).toBe(expected);
});

test.each(["", "1", "1.5s", "-1s", "1d", "1 s", "123456s", "1s2s3s4s5s", "1us"])(
  "%j is no duration",
  (text) => {
    expect(v.is(duration, text)).toBe(false);
  },
);

test.each([
  ["", true],
  ["a", true],
  ["a b\tc", true],
  [" a", false],
  ["a ", false],
  ["a\r\nb: c", false],
  ["a\u0000", false],
  ["ä", false],
])("header value %j: %p", (text, expected) => {
  expect(v.is(headerValue, text)).toBe(expected);
});

test.each([
  ["a.example", true],
  ["*.example", true],
  ["*", false],
  ["a.*.example", false],
  ["A.example", false],
  ["a.example:80", false],
  ["-a.example", false],
])("host %j: %p", (text, expected) => {
  expect(v.is(hostPattern, text)).toBe(expected);
});

test("labels", () => {
  expect(v.is(labels, { "app.kubernetes.io/name": "a", b: "" })).toBe(true);
  expect(v.is(labels, { "a/b/c": "a" })).toBe(false);
  expect(v.is(labels, { a: "-b" })).toBe(false);
});
