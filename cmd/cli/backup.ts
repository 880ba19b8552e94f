/** `weft backup` and `weft restore`. */
import { closeSync, existsSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from "node:fs";
import { EXIT, Failure } from "../../src/error.ts";
import { restoreBackup } from "../../src/store/backup.ts";
import { usage } from "../grammar.ts";
import { ownDataFolder } from "./locate.ts";
import type { Session, Typed } from "./session.ts";
import { typedToggle } from "./typed.ts";

export async function backup(
  session: Session,
  args: readonly string[],
  typed: Typed,
): Promise<number> {
  const { terminal } = session;
  const file = args[0] ?? "";
  if (file === "-" && terminal.outWatched) {
    throw usage("a backup is no text for a terminal", "name a file, or redirect: > mesh.backup");
  }
  if (file !== "-" && !typedToggle(typed, "force") && existsSync(file)) {
    throw new Failure("backup_exists", `${file} exists`, "choose another name, or add --force");
  }
  const keys = typedToggle(typed, "keys");
  const client = await session.client();
  const bytes = await client.download(keys ? "/v1/backup?keys=true" : "/v1/backup");
  if (file === "-") writeWhole(1, bytes);
  else writeAside(file, bytes);
  const size = `${(bytes.length / 1024).toFixed(0)} KiB`;
  terminal.err(
    keys
      ? `${size}, with the private keys: whoever has it can be the mesh\n`
      : `${size}, without private keys; they stay in the data folder (--keys takes them along)\n`,
  );
  return EXIT.ok;
}

export async function restore(session: Session, args: readonly string[]): Promise<number> {
  const data = ownDataFolder(session.settings, session.env, process.getuid?.() ?? 0);
  const { withKeys } = restoreBackup(args[0] ?? "", data);
  const keys = withKeys
    ? "with keys"
    : "without keys; unless keys/ lies there too, new ones are made and every proxy joins again";
  session.terminal.err(`restored into ${data}, ${keys}\nnow: weft controlplane --data ${data}\n`);
  return EXIT.ok;
}

function writeWhole(fd: number, bytes: Uint8Array): void {
  let at = 0;
  while (at < bytes.length) at += writeSync(fd, bytes, at);
}

/** The name only ever holds a whole backup, readable by its owner alone. */
function writeAside(file: string, bytes: Uint8Array): void {
  const aside = `${file}.new`;
  try {
    const fd = openSync(aside, "w", 0o600);
    try {
      writeWhole(fd, bytes);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(aside, file);
  } catch (error) {
    rmSync(aside, { force: true });
    const code = error instanceof Error && "code" in error ? String(error.code) : "failed";
    throw new Failure(
      "backup_unwritable",
      `cannot write ${file} (${code})`,
      "choose another place",
      {
        cause: error,
      },
    );
  }
}
