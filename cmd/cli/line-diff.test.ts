import { expect, test } from "bun:test";
import fc from "fast-check";
import { documentDiff, excerpted, lineDiff } from "./line-diff.ts";

const shown = (a: string, b: string) =>
  lineDiff(a, b)
    .map(({ mark, text }) => mark + text)
    .join("|");

test("marks what went and what came", () => {
  expect(shown("a\nb\nc\n", "a\nx\nc\n")).toBe(" a|-b|+x| c");
  expect(shown("", "a\n")).toBe("+a");
  expect(shown("a\n", "")).toBe("-a");
  expect(shown("a\n", "a\n")).toBe(" a");
});

test("the two sides can be read back from the script", () => {
  const texts = fc.array(fc.constantFrom("a", "b", "c"), { maxLength: 12 });
  fc.assert(
    fc.property(texts, texts, (a, b) => {
      const lines = lineDiff(a.join("\n"), b.join("\n"));
      const side = (mark: string) =>
        lines.filter((line) => line.mark !== mark).map((line) => line.text);
      expect(side("+")).toEqual(a);
      expect(side("-")).toEqual(b);
    }),
  );
});

test("equal lines far from a change are left out", () => {
  const before = Array.from({ length: 20 }, (_, i) => `l${i}`).join("\n");
  const lines = excerpted(lineDiff(before, before.replace("l10", "new")), 1);
  expect(lines.map(({ mark, text }) => mark + text)).toEqual([
    " …",
    " l9",
    "-l10",
    "+new",
    " l11",
    " …",
  ]);
});

test("a change of origin alone is said in words instead of an empty excerpt", () => {
  expect(documentDiff("a: 1\n", "a: 1\n").map(({ text }) => text)).toEqual([
    "same text; from a registration on one side, applied on the other",
  ]);
});
