/**
 * The rules of the code base as a program. `bun scripts/tidy.ts` prints one line per finding and
 * exits 1 when there is any; test/tidy.test.ts runs the same checks. Import directions, cycles,
 * dependency homes, dead files and banned words are walls. Sizes are alarms: `--alarms` lists them.
 */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, normalize, relative } from "node:path";

/** What a folder may import besides itself, `src/error.ts` and `src/std`. */
export const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  "src/std": [],
  "src/telemetry": [],
  "src/config": [],
  "src/identity": [],
  "src/net": [],
  "src/http": [],
  "src/serve": ["src/net", "src/http"],
  "src/route": ["src/http", "src/snapshot"],
  "src/snapshot": ["src/route", "src/http"],
  "src/upstream": ["src/snapshot", "src/route", "src/net", "src/http", "src/telemetry"],
  "src/proxy": [
    "src/snapshot",
    "src/route",
    "src/upstream",
    "src/http",
    "src/net",
    "src/identity",
    "src/telemetry",
  ],
  "src/bus": ["src/identity"],
  "src/store": ["src/config"],
  "src/registry": ["src/store", "src/bus", "src/snapshot", "src/telemetry", "src/identity"],
  "src/control": [
    "src/config",
    "src/snapshot",
    "src/store",
    "src/bus",
    "src/registry",
    "src/identity",
    "src/telemetry",
  ],
  "src/agent": ["src/bus", "src/identity", "src/snapshot", "src/telemetry"],
  "src/api": [
    "src/control",
    "src/config",
    "src/store",
    "src/registry",
    "src/identity",
    "src/serve",
    "src/snapshot",
    "src/telemetry",
  ],
  "src/admin": ["src/telemetry", "src/serve", "src/snapshot"],
};

/** The only folders that may import a package or touch a runtime interface. */
export const HOMES: Readonly<Record<string, readonly string[]>> = {
  nats: ["src/bus"],
  "drizzle-orm": ["src/store"],
  "bun:sqlite": ["src/store"],
  "@peculiar/x509": ["src/identity"],
  "reflect-metadata": ["src/identity"],
  valibot: ["src/config"],
  yaml: ["src/config"],
  hono: ["src/api", "src/admin", "src/serve"],
  commander: ["cmd"],
  "bun:ffi": ["src/net", "cmd"],
};

const BANNED: readonly (readonly [pattern: RegExp, instead: string])[] = [
  [/\bas any\b/, "parse the value instead of casting it"],
  [/:\s*any\b|<any>|\bany\[\]/, "`any`: use `unknown` and narrow it"],
  [/@ts-ignore/, "@ts-ignore: use @ts-expect-error with a reason"],
  [/\bFIXME\b|\bTODO\b/, "finish it, or write it down outside the code"],
  [/\bBun\.(listen|connect)\(/, "raw sockets live in src/net"],
];

const BANNED_SUFFIX = /(Manager|Helper|Util|Utils|Base|Impl|Wrapper|Processor)$/;

export interface Finding {
  readonly file: string;
  readonly line: number;
  readonly what: string;
}

export interface SourceFile {
  readonly path: string;
  readonly text: string;
}

interface Import {
  readonly from: string;
  readonly line: number;
}

const IMPORT =
  /(?:^|\n)\s*(?:import|export)\b[^"'`;]*?\bfrom\s*["']([^"']+)["']|import\s*\(\s*["']([^"']+)["']\s*\)|(?:^|\n)import\s+["']([^"']+)["']/g;

function importsOf(file: SourceFile): Import[] {
  const found: Import[] = [];
  for (const match of file.text.matchAll(IMPORT)) {
    const from = match[1] ?? match[2] ?? match[3];
    if (from === undefined) continue;
    const line = file.text.slice(0, match.index + match[0].length).split("\n").length;
    found.push({ from, line });
  }
  return found;
}

function folderOf(path: string): string {
  const parts = path.split("/");
  if (parts[0] !== "src") return parts[0] ?? "";
  return parts.length === 2 ? "src" : `src/${parts[1]}`;
}

function isTest(path: string): boolean {
  return /\.(test|cases|fuzz|fixture)\.ts$/.test(path) || path.startsWith("test/");
}

/** Declarations of what an import of a foreign file type gives: nothing to run, nothing to reach. */
function isDeclaration(path: string): boolean {
  return path.endsWith(".d.ts");
}

function packageOf(specifier: string): string {
  const parts = specifier.split("/");
  return specifier.startsWith("@") ? parts.slice(0, 2).join("/") : (parts[0] ?? specifier);
}

function checkImports(file: SourceFile): Finding[] {
  const findings: Finding[] = [];
  const folder = folderOf(file.path);
  for (const { from, line } of importsOf(file)) {
    const report = (what: string) => findings.push({ file: file.path, line, what });
    if (!from.startsWith(".")) {
      const homes = HOMES[packageOf(from)];
      if (homes !== undefined && !homes.includes(folder) && !isTest(file.path)) {
        report(`imports ${from}, whose home is ${homes.join(", ")}`);
      }
      continue;
    }
    const target = normalize(join(dirname(file.path), from));
    const targetFolder = folderOf(target);
    if (isTest(file.path)) continue;
    if (isTest(target) && folder !== "scripts") report(`imports the test file ${target}`);
    if (targetFolder === "cmd" && folder !== "cmd") report("imports cmd, which only wires parts");
    if (!folder.startsWith("src/")) continue;
    if (targetFolder === folder || targetFolder === "src/std" || target === "src/error.ts")
      continue;
    if (targetFolder.startsWith("src") && !(MAY_IMPORT[folder] ?? []).includes(targetFolder)) {
      report(`${folder} must not import ${targetFolder} (scripts/tidy.ts has the table)`);
    }
  }
  return findings;
}

function checkWords(file: SourceFile): Finding[] {
  const findings: Finding[] = [];
  const folder = folderOf(file.path);
  if (file.path.startsWith("scripts/tidy") || file.path === "test/tidy.test.ts") return findings;
  file.text.split("\n").forEach((text, index) => {
    const code = text.replace(/^\s*(\*|\/\/|\/\*).*$/, "");
    for (const [pattern, instead] of BANNED) {
      const socketAllowed = folder === "src/net" || !folder.startsWith("src") || isTest(file.path);
      if (pattern.source.includes("listen") && socketAllowed) continue;
      if (pattern.test(pattern.source.includes("TODO") ? text : code)) {
        findings.push({ file: file.path, line: index + 1, what: instead });
      }
    }
    const name = /\b(?:class|interface)\s+(\w+)/.exec(code)?.[1];
    if (name !== undefined && BANNED_SUFFIX.test(name)) {
      findings.push({ file: file.path, line: index + 1, what: `${name}: name the thing itself` });
    }
    if (!isDeclaration(file.path) && /^\s*export\s+(default|\*)/.test(code)) {
      findings.push({ file: file.path, line: index + 1, what: "named exports only, no barrels" });
    }
  });
  if (/(^|\/)index\.ts$/.test(file.path)) {
    findings.push({ file: file.path, line: 1, what: "index.ts: import the defining file" });
  }
  return findings;
}

/** Clock and chance are arguments below the composition roots, so that tests can fake them. */
function checkAmbient(file: SourceFile): Finding[] {
  if (!file.path.startsWith("src/") || isTest(file.path)) return [];
  const findings: Finding[] = [];
  file.text.split("\n").forEach((text, index) => {
    const code = text.replace(/^\s*(\*|\/\/|\/\*).*$/, "");
    if (/\bprocess\.(exit|argv|env)\b/.test(code)) {
      findings.push({ file: file.path, line: index + 1, what: "process.*: only cmd reads it" });
    }
    if (/\b(Date\.now|Math\.random)\(\)/.test(code)) {
      findings.push({ file: file.path, line: index + 1, what: "pass `now` or `random` in" });
    }
  });
  return findings;
}

/** Relative imports as a graph; dynamic imports count for reachability, not for cycles. */
function graphOf(files: readonly SourceFile[]): Map<string, string[]> {
  const known = new Set(files.map((file) => file.path));
  const graph = new Map<string, string[]>();
  for (const file of files) {
    const targets = importsOf(file)
      .filter(({ from }) => from.startsWith("."))
      .map(({ from }) => normalize(join(dirname(file.path), from)))
      .filter((target) => known.has(target));
    graph.set(file.path, targets);
  }
  return graph;
}

function checkCycles(files: readonly SourceFile[]): Finding[] {
  const graph = graphOf(files);
  const state = new Map<string, "open" | "done">();
  const findings: Finding[] = [];
  const visit = (path: string, trail: readonly string[]): void => {
    if (state.get(path) === "done") return;
    if (state.get(path) === "open") {
      const cycle = [...trail.slice(trail.indexOf(path)), path].join(" → ");
      findings.push({ file: path, line: 1, what: `import cycle: ${cycle}` });
      return;
    }
    state.set(path, "open");
    for (const next of graph.get(path) ?? []) visit(next, [...trail, path]);
    state.set(path, "done");
  };
  for (const file of files) visit(file.path, []);
  return findings;
}

function checkDead(files: readonly SourceFile[]): Finding[] {
  const graph = graphOf(files);
  const alive = new Set<string>();
  const visit = (path: string): void => {
    if (alive.has(path)) return;
    alive.add(path);
    for (const next of graph.get(path) ?? []) visit(next);
  };
  for (const file of files) {
    if (/^cmd\/main\.ts$|^scripts\//.test(file.path)) visit(file.path);
  }
  return files
    .filter(({ path }) => /^(src|cmd)\//.test(path) && !isTest(path) && !isDeclaration(path))
    .filter((file) => !alive.has(file.path))
    .map((file) => ({
      file: file.path,
      line: 1,
      what: "dead: nothing reaches it from cmd/main.ts",
    }));
}

/** Lengths that ask for a look; they never fail. */
export function alarms(files: readonly SourceFile[]): Finding[] {
  return files
    .filter((file) => !isTest(file.path) && file.text.split("\n").length > 501)
    .map((file) => ({
      file: file.path,
      line: 501,
      what: `${file.text.split("\n").length} lines: does it keep two secrets?`,
    }));
}

export function check(files: readonly SourceFile[]): Finding[] {
  return [
    ...files.flatMap((file) => [...checkImports(file), ...checkWords(file), ...checkAmbient(file)]),
    ...checkCycles(files),
    ...checkDead(files),
  ];
}

export function readTree(root: string): SourceFile[] {
  const files: SourceFile[] = [];
  const walk = (folder: string): void => {
    for (const name of readdirSync(folder).sort()) {
      const path = join(folder, name);
      if (statSync(path).isDirectory()) {
        if (name !== "node_modules") walk(path);
      } else if (name.endsWith(".ts")) {
        files.push({ path: relative(root, path), text: readFileSync(path, "utf8") });
      }
    }
  };
  for (const folder of ["cmd", "src", "scripts", "test"]) walk(join(root, folder));
  return files;
}

if (import.meta.main) {
  const files = readTree(join(import.meta.dir, ".."));
  const show = ({ file, line, what }: Finding) => `${file}:${line}: ${what}`;
  if (process.argv.includes("--alarms")) console.log(alarms(files).map(show).join("\n"));
  const findings = check(files);
  for (const finding of findings) console.error(show(finding));
  process.exit(findings.length === 0 ? 0 : 1);
}
