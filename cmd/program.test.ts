import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expandMode } from "./program.ts";

test.each([
  [["--mode=sidecar", "--service=x"], {}, ["sidecar", "--service=x"]],
  [["--service=x", "--mode", "node"], {}, ["node", "--service=x"]],
  [["sidecar", "--mode=sidecar"], {}, ["sidecar"]],
  [["--service=x"], { WEFT_MODE: "sidecar" }, ["sidecar", "--service=x"]],
  [[], { WEFT_MODE: "controlplane" }, ["controlplane"]],
  [["apply", "-f", "x"], { WEFT_MODE: "controlplane" }, ["apply", "-f", "x"]],
  [["--help"], { WEFT_MODE: "controlplane" }, ["--help"]],
])("%p with %p is %p", (args, env, want) => {
  expect(expandMode(args, env)).toEqual(want);
});

test("an unknown mode is refused, from flag and variable", () => {
  expect(() => expandMode(["--mode=sidecr"], {})).toThrow('--mode: "sidecr"');
  expect(() => expandMode([], { WEFT_MODE: "x" })).toThrow('WEFT_MODE: "x"');
});

test("the configuration file may name the mode", () => {
  const folder = mkdtempSync(join(tmpdir(), "weft-mode-"));
  const path = join(folder, "weft.yaml");
  writeFileSync(path, "mode: node\nport-base: 18000\n");
  const args = [`--config=${path}`];
  expect(expandMode(args, {})).toEqual(["node", ...args]);
  expect(expandMode([], { WEFT_CONFIG: path })).toEqual(["node"]);
  rmSync(folder, { recursive: true, force: true });
});
