/** Lists in every output format, once or for as long as somebody watches. */
import { type Column, table } from "./table.ts";
import type { Terminal } from "./terminal.ts";
import type { Format } from "./typed.ts";

export interface Listing<Row> {
  readonly columns: readonly Column<Row>[];
  readonly rows: readonly Row[];
  /** What `-o name` prints for a row. */
  readonly nameOf: (row: Row) => string;
  /** What `-o json` and `-o yaml` print: stable keys. */
  readonly value: unknown;
  /** Said on stderr when there are no rows. */
  readonly empty: string;
}

export function printListing<Row>(terminal: Terminal, listing: Listing<Row>, format: Format): void {
  if (format === "json") terminal.out(`${JSON.stringify(listing.value, null, 2)}\n`);
  else if (format === "yaml") terminal.out(toYaml(listing.value));
  else if (format === "name") {
    terminal.out(listing.rows.map((row) => `${listing.nameOf(row)}\n`).join(""));
  } else if (listing.rows.length === 0) terminal.err(`${listing.empty}\n`);
  else terminal.out(table(listing.columns, listing.rows, format === "wide"));
}

export function toYaml(value: unknown): string {
  return `${Bun.YAML.stringify(value, null, 2).trimEnd()}\n`;
}

const WATCH_MS = 1000;

/**
 * Shows again whenever the text changes, in place on a terminal. Ends with the process, or when
 * its reader has left.
 */
export async function watch(
  terminal: Terminal,
  show: (target: Terminal) => Promise<void>,
): Promise<void> {
  let before = "";
  for (;;) {
    let text = "";
    const collect = (part: string) => {
      text += part;
      return true;
    };
    await show({ ...terminal, out: collect, err: collect });
    if (text !== before) {
      if (!terminal.out(terminal.outWatched ? `\x1b[H\x1b[2J${text}` : text)) return;
      before = text;
    }
    await terminal.sleep(WATCH_MS);
  }
}
