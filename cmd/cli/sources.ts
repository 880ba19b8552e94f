/** Documents named on the command line: a file, a folder, or `-` for stdin. */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Source } from "../../src/config/resource.ts";
import { EXIT, Failure } from "../../src/error.ts";
import { usage } from "../grammar.ts";
import type { Terminal } from "./terminal.ts";

/** What the API takes in one apply. */
const TOTAL_BYTES_MAX = 4 * 1024 * 1024;

export async function readSources(
  paths: readonly string[],
  terminal: Terminal,
): Promise<readonly Source[]> {
  if (paths.length === 0) {
    throw usage(
      "no documents: -f is missing",
      "name a file, a folder, or - for stdin: -f mesh.yaml",
    );
  }
  const sources: Source[] = [];
  for (const path of paths) {
    if (path === "-") sources.push({ name: "-", text: await terminal.stdin() });
    else for (const file of filesAt(path)) sources.push({ name: file, text: readText(file) });
  }
  const bytes = sources.reduce((sum, source) => sum + Buffer.byteLength(source.text), 0);
  if (bytes > TOTAL_BYTES_MAX) {
    throw new Failure(
      "too_large",
      `the documents are ${(bytes / 1024 / 1024).toFixed(1)} MiB; at most 4 MiB go in one apply`,
      "apply them in parts",
      { exit: EXIT.refused, status: 413 },
    );
  }
  return sources;
}

function filesAt(path: string): readonly string[] {
  let folder: boolean;
  try {
    folder = statSync(path).isDirectory();
  } catch {
    throw usage(`there is no ${path}`, "check the path");
  }
  if (!folder) return [path];
  const files = readdirSync(path, { recursive: true })
    .map(String)
    .filter((name) => /\.(ya?ml|json)$/.test(name))
    .sort()
    .map((name) => join(path, name));
  if (files.length === 0)
    throw usage(`there is no .yaml, .yml or .json in ${path}`, "check the path");
  return files;
}

function readText(file: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(readFileSync(file));
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "unreadable";
    if (code === "ERR_ENCODING_INVALID_ENCODED_DATA") {
      throw usage(`${file} is not UTF-8`, "save it as UTF-8");
    }
    throw usage(`cannot read ${file} (${code})`, "check its permissions");
  }
}
