/** The process's own terminal. */
import { type Terminal, writeAll } from "./cli/terminal.ts";

export function processTerminal(): Terminal {
  const outWatched = process.stdout.isTTY === true;
  const errWatched = process.stderr.isTTY === true;
  const plain = (process.env["NO_COLOR"] ?? "") !== "" || process.env["TERM"] === "dumb";
  return {
    out: (text) => writeAll(1, text),
    err: (text) => writeAll(2, text),
    outWatched,
    errWatched,
    colours: !plain && outWatched && errWatched,
    columns: process.stdout.columns ?? 80,
    stdin: () => Bun.stdin.text(),
    now: Date.now,
    sleep: Bun.sleep,
  };
}
