import { expect, test } from "bun:test";
import { join } from "node:path";
import { check, readTree } from "../scripts/tidy.ts";

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
