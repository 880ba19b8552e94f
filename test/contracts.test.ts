/** What the pages promise, held against the fixtures that the code is held against. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import accessLog from "./fixtures/contracts/access-log.json" with { type: "json" };
import metrics from "./fixtures/contracts/metrics.json" with { type: "json" };
import processes from "./fixtures/contracts/process.json" with { type: "json" };

const PAGE = readFileSync(join(import.meta.dir, "../docs/operations.md"), "utf8");

/** Text of one section of the page. */
function section(title: string): string {
  const from = PAGE.indexOf(`## ${title}\n`);
  const to = PAGE.indexOf("\n## ", from + 1);
  return from < 0 ? "" : PAGE.slice(from, to < 0 ? undefined : to);
}

/** Rows of a section's tables: names in the first cell, everything in backquotes in the second. */
function rows(title: string): string[] {
  const found = section(title).matchAll(/^\| `(\w+)` \| ([^|]*) \|/gm);
  return [...found].map(([, name, cell = ""]) => {
    const labels = cell.split(",").map((label) => label.replaceAll("`", "").trim());
    return `${name}: ${labels.filter((label) => label !== "–").join(", ")}`;
  });
}

for (const [title, families] of [
  ["Metrics of a proxy", metrics.proxy],
  ["Metrics of the control plane", metrics.controlplane],
] as const) {
  test(`the page lists the ${title.toLowerCase()} with their labels`, () => {
    const known = families.map(({ name, labels }) => `${name}: ${labels.join(", ")}`);
    expect(rows(title).sort()).toEqual(known.sort());
  });
}

test("the page lists an edge's labels, the access log's fields, ports and exit codes", () => {
  const quoted = (names: readonly string[]) => names.map((name) => `\`${name}\``);
  for (const label of quoted(metrics.edge)) expect(section("Metrics of a proxy")).toContain(label);
  const fields = section("Access log");
  for (const field of quoted(Object.keys(accessLog.line))) expect(fields).toContain(field);
  const table = section("Ports and files");
  for (const offset of Object.values(processes.ports)) expect(table).toContain(`base+${offset} |`);
  const codes = section("Signals and exit codes");
  for (const code of Object.values(processes.exit))
    expect(codes).toMatch(new RegExp(`\\b${code} `));
});
