import { expect, test } from "bun:test";
import { age, table } from "./table.ts";

const columns = [
  { title: "NAME", text: (row: { name: string; n: number }) => row.name },
  {
    title: "N",
    text: (row: { name: string; n: number }) => String(row.n),
    align: "right" as const,
  },
  { title: "MORE", text: () => "", wide: true },
];

test("aligns by shown width and leaves no trailing space", () => {
  const rows = [
    { name: "日本", n: 1 },
    { name: "\x1b[31mred\x1b[0m", n: 1000 },
  ];
  expect(table(columns, rows)).toBe("NAME      N\n日本      1\n\x1b[31mred\x1b[0m    1000\n");
});

test("wide shows every column, an empty cell is a dash", () => {
  expect(table(columns, [{ name: "a", n: 1 }], true)).toBe("NAME   N   MORE\na      1   -\n");
});

test("a name cannot move the cursor", () => {
  expect(table(columns, [{ name: "a\nb\x07", n: 1 }])).toContain("a?b?");
});

test("age keeps one unit", () => {
  expect([0, 119_000, 130_000, 7_200_000, 172_800_000].map(age)).toEqual([
    "0s",
    "119s",
    "2m",
    "2h",
    "2d",
  ]);
});
