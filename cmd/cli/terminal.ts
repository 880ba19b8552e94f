/** Where a verb writes: data on stdout, talk on stderr, colours only where a person reads. */
import { writeSync } from "node:fs";
import { Failure } from "../../src/error.ts";

export type Colour = "red" | "green" | "yellow" | "bold" | "dim" | "cyan";

export interface Terminal {
  /** Data, for stdout; gives whether somebody still reads it. */
  readonly out: (text: string) => boolean;
  /** Talk, for stderr. */
  readonly err: (text: string) => void;
  /** Whether a person watches stdout, stderr. */
  readonly outWatched: boolean;
  readonly errWatched: boolean;
  readonly colours: boolean;
  readonly columns: number;
  readonly stdin: () => Promise<string>;
  readonly now: () => number;
  readonly sleep: (ms: number) => Promise<void>;
}

const CODES: Readonly<Record<Colour, number>> = {
  red: 31,
  green: 32,
  yellow: 33,
  cyan: 36,
  bold: 1,
  dim: 2,
};

export function paint(terminal: Terminal, colour: Colour, text: string): string {
  return terminal.colours ? `\x1b[${CODES[colour]}m${text}\x1b[0m` : text;
}

/**
 * Writes everything, synchronously: an exit right after must not lose the tail.
 *
 * A full non-blocking pipe gives EAGAIN; a reader that left (`| head`) gives EPIPE and is no error.
 *
 * @returns false when the reader has left.
 */
export function writeAll(fd: number, text: string): boolean {
  const bytes = Buffer.from(text, "utf8");
  let at = 0;
  while (at < bytes.length) {
    try {
      at += writeSync(fd, bytes, at);
    } catch (error) {
      const code = error instanceof Error && "code" in error ? error.code : undefined;
      if (code === "EPIPE") return false;
      if (code !== "EAGAIN") throw error;
      Bun.sleepSync(1);
    }
  }
  return true;
}

/** For errors of the system that no place takes up, as any write may meet them. */
const SYSTEM_FIXES: Readonly<Record<string, string>> = {
  ENOSPC: "free space on the disk of the data folder (--data), and start again",
  EDQUOT: "the user's disk quota is used up: free space in the data folder (--data)",
  EROFS: "the file system is read-only: choose another data folder with --data DIR",
};

/** One line that says what is wrong, and a next step. */
export function explain(terminal: Terminal, error: unknown): void {
  const label = paint(terminal, "red", "error:");
  if (error instanceof Failure) {
    terminal.err(`${label} ${error.message}\n`);
    if (error.fix !== "") terminal.err(`${paint(terminal, "dim", "  fix:")} ${error.fix}\n`);
    return;
  }
  const message = error instanceof Error ? error.message : String(error);
  terminal.err(`${label} ${message.split("\n")[0]}\n`);
  if (!(error instanceof Error && "code" in error)) return;
  const fix = SYSTEM_FIXES[String(error.code)];
  if (fix !== undefined) terminal.err(`${paint(terminal, "dim", "  fix:")} ${fix}\n`);
}
