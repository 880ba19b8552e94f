import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Failure } from "../src/error.ts";
import { FLAGS, type FlagName, MODE_FLAGS, readConfigFile, settle, variableOf } from "./flags.ts";

const folder = mkdtempSync(join(tmpdir(), "weft-flags-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function file(text: string) {
  const path = join(folder, "weft.yaml");
  writeFileSync(path, text);
  return readConfigFile(path, "--config");
}

const NAMES: readonly FlagName[] = ["port-base", "app", "access-log", "restored", "drain"];

describe("settle", () => {
  test("flags win over variables, variables over the file", () => {
    const config = file("port-base: 1000\ndrain: 1s\n");
    const env = { WEFT_PORT_BASE: "2000" };
    expect(settle(NAMES, { "port-base": "3000" }, env, config)["port-base"]).toBe(3000);
    expect(settle(NAMES, {}, env, config)["port-base"]).toBe(2000);
    expect(settle(NAMES, {}, {}, config)["port-base"]).toBe(1000);
    expect(settle(NAMES, {}, {}, config).drain).toBe(1000);
    expect(settle(NAMES, {}, {})["port-base"]).toBeUndefined();
  });

  test("every spelling of a repeated value gives the same", () => {
    const want = settle(NAMES, { app: ["80=8080", "9090/tcp"] }, {}).app;
    expect(want).toHaveLength(2);
    expect(settle(NAMES, {}, { WEFT_APP: "80=8080,9090/tcp" }).app).toEqual(want);
    expect(settle(NAMES, {}, {}, file('app: ["80=8080", 9090/tcp]')).app).toEqual(want);
    expect(settle(NAMES, {}, {}, file("app: 8080")).app).toHaveLength(1);
  });

  test("toggles and switches", () => {
    expect(settle(NAMES, { restored: true }, {}).restored).toBe(true);
    expect(settle(NAMES, {}, { WEFT_RESTORED: "false" }).restored).toBe(false);
    expect(settle(NAMES, {}, {}, file("access-log: false"))["access-log"]).toBe("off");
    expect(settle(NAMES, {}, { WEFT_ACCESS_LOG: "" })["access-log"]).toBeUndefined();
  });

  test.each([
    [{ "port-base": "x" }, {}, /^--port-base: "x"/],
    [{ "port-base": "65535" }, {}, /^--port-base: 65535 is too high/],
    [{}, { WEFT_DRAIN: "soon" }, /^WEFT_DRAIN: "soon"/],
  ])("a bad value names where it was written %#", (written, env, says) => {
    expect(() => settle(NAMES, written, env)).toThrow(says);
  });

  test("a bad value in the file names key and file", () => {
    expect(() => settle(NAMES, {}, {}, file("drain: 5"))).toThrow(/drain in .*weft.yaml: "5"/);
    expect(() => settle(NAMES, {}, {}, file("drain: [1s, 2s]"))).toThrow("a list");
    expect(() => settle(NAMES, {}, {}, file("drain: {a: 1}"))).toThrow("plain");
  });

  test("an unknown key is refused with a way out", () => {
    try {
      settle(NAMES, {}, {}, file("portBase: 17000"));
      throw new Error("accepted");
    } catch (error) {
      expect(error).toBeInstanceOf(Failure);
      expect((error as Failure).exit).toBe(2);
      expect((error as Failure).fix).toBe("write port-base");
    }
    expect(() => settle(NAMES, {}, {}, file("nonsense: 1"))).toThrow('unknown setting "nonsense"');
  });

  test("a file that is missing or no mapping is refused", () => {
    expect(() => readConfigFile("/nowhere/x", "--config")).toThrow("ENOENT");
    expect(() => file("- a")).toThrow("not a mapping");
    expect(() => file("a: [")).toThrow("YAML");
  });
});

describe("the table", () => {
  test("every flag is taken by a mode or a verb, and has help", () => {
    const taken = new Set<string>(Object.values(MODE_FLAGS).flat());
    for (const [name, flag] of Object.entries(FLAGS)) {
      expect(flag.help.length).toBeGreaterThan(5);
      expect(taken.has(name) || name === "mode").toBe(true);
    }
  });

  test("variables are spelled after flags", () => {
    expect(variableOf("token-file")).toBe("WEFT_TOKEN_FILE");
  });
});

test("docs/operations.md lists every flag, with its modes and its help", () => {
  const page = readFileSync(join(import.meta.dir, "../docs/operations.md"), "utf8");
  const modes = Object.entries(MODE_FLAGS) as [string, readonly string[]][];
  const rows = Object.entries(FLAGS).map(([name, { hint, help }]) => {
    const flag = hint === "" ? `--${name}` : `--${name} ${hint.replaceAll("|", "\\|")}`;
    const taken = modes.filter(([, names]) => names.includes(name)).map(([mode]) => mode);
    const where = taken.length === modes.length || taken.length === 0 ? "all" : taken.join(", ");
    return `| \`${flag}\` | ${where} | ${help.replaceAll("|", "\\|")} |`;
  });
  expect(rows.filter((row) => !page.includes(row))).toEqual([]);
});
