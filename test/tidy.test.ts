import { expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { check, MAY_IMPORT, readTree } from "../scripts/tidy.ts";

test("the tree keeps its own rules", () => {
  const findings = check(readTree(join(import.meta.dir, "..")));
  expect(findings.map(({ file, line, what }) => `${file}:${line}: ${what}`)).toEqual([]);
});

const main = { path: "cmd/main.ts", text: 'import { a } from "../src/net/a.ts";\n' };

const broken: readonly (readonly [name: string, path: string, text: string, says: string])[] = [
  [
    "an import against the table",
    "src/net/a.ts",
    'import { b } from "../proxy/b.ts";',
    "must not import src/proxy",
  ],
  [
    "a package outside its home",
    "src/net/a.ts",
    'import { connect } from "nats";',
    "home is src/bus",
  ],
  ["a cast to any", "src/net/a.ts", "const x = y as any;", "parse the value"],
  ["an unfinished note", "src/net/a.ts", "// TODO later", "finish it"],
  ["an ambient clock", "src/net/a.ts", "const t = Date.now();", "pass `now`"],
  ["a vague name", "src/net/a.ts", "export class SocketManager {}", "name the thing itself"],
  ["a dead file", "src/net/b.ts", "export const b = 1;", "dead"],
  ["a barrel", "src/net/a.ts", 'export * from "./b.ts";', "no barrels"],
];

for (const [name, path, text, says] of broken) {
  test(`the checker finds ${name}`, () => {
    const findings = check([main, { path, text }]);
    expect(findings.some(({ what }) => what.includes(says))).toBe(true);
  });
}

test("the checker finds a cycle", () => {
  const findings = check([
    main,
    { path: "src/net/a.ts", text: 'import { b } from "./b.ts";' },
    { path: "src/net/b.ts", text: 'import { a } from "./a.ts";' },
  ]);
  expect(findings.some(({ what }) => what.includes("import cycle"))).toBe(true);
});

const ROOT = join(import.meta.dir, "..");
const architecture = readFileSync(join(ROOT, "ARCHITECTURE.md"), "utf8");

test("ARCHITECTURE.md shows the import table as it is checked", () => {
  const shown: Record<string, string[]> = { "src/std": [] };
  for (const [, folder, list] of architecture.matchAll(/^\| `(\w+)` \| .+ \| ([^|]+) \|$/gm)) {
    if (folder === "cmd") continue;
    const names = list!.replaceAll(" (types)", "").split(", ");
    shown[`src/${folder}`] = names.filter((name) => name !== "–").map((name) => `src/${name}`);
  }
  const sorted = (table: Readonly<Record<string, readonly string[]>>) =>
    Object.fromEntries(Object.entries(table).map(([folder, may]) => [folder, may.toSorted()]));
  expect(sorted(shown)).toEqual(sorted(MAY_IMPORT));
});

test("every file that ARCHITECTURE.md names exists", () => {
  const named = [...architecture.matchAll(/`([\w./-]+\/[\w.-]+\.\w+)`/g)].map(([, path]) => path!);
  expect(named.length).toBeGreaterThan(5);
  const missing = named.filter(
    (path) => !existsSync(join(ROOT, path)) && !existsSync(join(ROOT, "src", path)),
  );
  expect(missing).toEqual([]);
});

test("decisions are numbered without gaps, as their titles say", () => {
  const files = readdirSync(join(ROOT, "docs/adr")).sort();
  files.forEach((file, index) => {
    expect(file).toStartWith(`${String(index + 1).padStart(4, "0")}-`);
    expect(readFileSync(join(ROOT, "docs/adr", file), "utf8")).toStartWith(`# ${index + 1}. `);
  });
});
