/** Which nats-server executable to run. */
import { createHash } from "node:crypto";
import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { Failure } from "../error.ts";
import { makeNatsFolder } from "./nats-folder.ts";
import { isAtLeast, NATS_FLOOR, NATS_SHA256, NATS_VERSION } from "./nats-release.ts";

export interface NatsServerSource {
  /** `--nats-server PATH`. */
  readonly path?: string;
  /** The carried executable as a readable file. */
  readonly embedded?: string;
  readonly dataDir: string;
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Copies the carried executable where it can be run; a damaged copy is replaced. */
function copyOut(embedded: string, dataDir: string): string {
  const folder = join(resolve(dataDir), "nats");
  const target = join(folder, `nats-server-${NATS_VERSION}`);
  try {
    if (sha256(readFileSync(target)) === NATS_SHA256) return target;
  } catch {
    // Not copied yet.
  }
  const bytes = readFileSync(embedded);
  if (sha256(bytes) !== NATS_SHA256) {
    throw new Failure(
      "nats_damaged",
      "the nats-server inside this executable is damaged",
      "install weft again, or give a nats-server with --nats-server PATH",
    );
  }
  makeNatsFolder(folder);
  // A running copy cannot be written to, but can be replaced.
  writeFileSync(`${target}.new`, bytes, { mode: 0o755 });
  renameSync(`${target}.new`, target);
  rmSync(`${target}.new`, { force: true });
  return target;
}

/**
 * The executable to run: the given one, else the carried one copied to the data folder. Throws a
 * `Failure` when there is none, or when the given one is too old to be safe.
 */
export function findNatsServer(source: NatsServerSource): string {
  if (source.path === undefined) {
    if (source.embedded !== undefined) return copyOut(source.embedded, source.dataDir);
    throw new Failure(
      "nats_missing",
      "this build of weft carries no nats-server",
      "give one with --nats-server PATH, or use an external NATS with --nats-url",
    );
  }
  let version: string | undefined;
  try {
    const result = Bun.spawnSync([source.path, "--version"], { env: {}, timeout: 5_000 });
    version = /v(\d+\.\d+\.\d+\S*)/.exec(result.stdout.toString())?.[1];
  } catch {
    // Reported below with the same words as any other program.
  }
  if (version === undefined) {
    throw new Failure(
      "nats_invalid",
      `${source.path} is not a nats-server that runs here`,
      "check the path given with --nats-server",
    );
  }
  if (!isAtLeast(version, NATS_FLOOR)) {
    throw new Failure(
      "nats_too_old",
      `${source.path} is nats-server ${version}; versions before ${NATS_FLOOR} are unsafe`,
      `use ${NATS_FLOOR} or newer, or leave --nats-server out`,
    );
  }
  return resolve(source.path);
}
