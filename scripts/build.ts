/**
 * Builds dist/weft: one executable with the runtime, migrations and a nats-server inside.
 *
 *   bun scripts/build.ts [--outfile FILE] [--target bun-linux-arm64]
 *
 * Without a nats-server (no network, another platform) the build still succeeds; `weft
 * controlplane` then says how to name one.
 */
import { existsSync, mkdirSync, renameSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import manifest from "../package.json" with { type: "json" };

const ROOT = resolve(import.meta.dir, "..");
const CARRIED = join(ROOT, "build/nats-server");

function git(...args: readonly string[]): string {
  const done = Bun.spawnSync(["git", "-C", ROOT, ...args], { stderr: "ignore" });
  return done.success ? done.stdout.toString().trim() : "";
}

function commit(): string {
  const hash = git("rev-parse", "--short=12", "HEAD");
  if (hash === "") return "unknown";
  return git("status", "--porcelain", "--untracked-files=no") === "" ? hash : `${hash}-dirty`;
}

function fetchNatsServer(): void {
  const fetched = Bun.spawnSync([process.execPath, join(ROOT, "scripts/fetch-nats.ts")], {
    stdout: "ignore",
    stderr: "inherit",
  });
  if (fetched.success) return;
  mkdirSync(dirname(CARRIED), { recursive: true });
  if (!existsSync(CARRIED)) writeFileSync(CARRIED, "");
  console.error("warning: no nats-server to carry; start with --nats-server or --nats-url");
}

function compile(outfile: string, target: string | undefined): void {
  const aside = `${outfile}.new`;
  const args = [
    "build",
    join(ROOT, "cmd/main.ts"),
    "--compile",
    "--minify",
    "--bytecode",
    "--format=esm",
    "--no-compile-autoload-dotenv",
    "--no-compile-autoload-bunfig",
    `--define=WEFT_VERSION=${JSON.stringify(manifest.version)}`,
    `--define=WEFT_COMMIT=${JSON.stringify(commit())}`,
    `--outfile=${aside}`,
    ...(target === undefined ? [] : [`--target=${target}`]),
  ];
  const built = Bun.spawnSync([process.execPath, ...args], {
    cwd: ROOT,
    stdout: "ignore",
    stderr: "inherit",
  });
  if (!built.success) process.exit(1);
  // Renamed into place: a running weft keeps its old file, and none sees half of a new one.
  renameSync(aside, outfile);
}

const { values } = parseArgs({
  options: {
    outfile: { type: "string", default: join(ROOT, "dist/weft") },
    target: { type: "string" },
  },
});
const started = performance.now();
const outfile = resolve(values.outfile);
mkdirSync(dirname(outfile), { recursive: true });
fetchNatsServer();
compile(outfile, values.target);
const megabytes = (statSync(outfile).size / 1e6).toFixed(0);
const seconds = ((performance.now() - started) / 1000).toFixed(1);
console.log(`${outfile}  ${megabytes} MB  ${seconds} s`);
