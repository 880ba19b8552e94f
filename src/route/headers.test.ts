import { expect, test } from "bun:test";
import { compileEdits } from "./headers.ts";

const edit = (change: object) => ({ set: [], add: [], remove: [], ...change });

test("set drops the old field, add keeps it, remove drops it", () => {
  const compiled = compileEdits(
    edit({
      set: [{ name: "X-Set", value: "s" }],
      add: [{ name: "X-Add", value: "a" }],
      remove: ["X-Gone"],
    }),
  );
  expect(compiled?.lines).toBe("X-Set: s\r\nX-Add: a\r\n");
  expect(compiled?.drops).toEqual(["x-set", "x-gone"]);
});

test("a later edit overrides what an earlier one set or added", () => {
  const rule = edit({ set: [{ name: "A", value: "1" }], add: [{ name: "B", value: "1" }] });
  const backend = edit({ set: [{ name: "a", value: "2" }], remove: ["b"] });
  expect(compileEdits(rule, backend)?.lines).toBe("a: 2\r\n");
  const more = edit({ add: [{ name: "A", value: "2" }] });
  expect(compileEdits(rule, more)?.lines).toBe("A: 1\r\nB: 1\r\nA: 2\r\n");
});

test("nothing to do is undefined", () => {
  expect(compileEdits()).toBeUndefined();
  expect(compileEdits(undefined, edit({}))).toBeUndefined();
});
