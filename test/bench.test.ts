/** What the benchmark prints, for programs and for people. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type Report, reportJson, reportText } from "../scripts/bench/report.ts";
import { SCENARIOS } from "../scripts/bench/scenarios.ts";
import golden from "./fixtures/contracts/bench.json" with { type: "json" };

const report = golden.report as unknown as Report;

test("golden: the report, as JSON and as text", () => {
  expect(JSON.parse(reportJson(report))).toEqual(golden.report);
  const lines = reportText(report).split("\n");
  const words = lines.map((line) => line.split(/ {2,}/).filter((cell) => cell !== ""));
  expect(words.map((cells) => cells.join(" · "))).toEqual(golden.text);
});

test("golden: scenarios have the names that figures are compared by", () => {
  expect(Object.keys(SCENARIOS).filter((name) => !golden.names.includes(name))).toEqual([]);
  const page = readFileSync(join(import.meta.dir, "../docs/performance.md"), "utf8");
  const figures = page.slice(page.indexOf("## Figures"), page.indexOf("\n## Where"));
  const rows = [...figures.matchAll(/^\| `([a-z0-9-]+)`/gm)].map(([, name = ""]) => name);
  expect(rows.length).toBeGreaterThan(0);
  // One scenario may give several rows: memory, memory-rss.
  const known = (row: string) => golden.names.some((name) => row.startsWith(name));
  expect(rows.filter((row) => !known(row))).toEqual([]);
});
