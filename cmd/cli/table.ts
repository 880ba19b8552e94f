/** Columns of text, aligned by what a terminal shows rather than by code units. */

export type Align = "left" | "right";

export interface Column<Row> {
  readonly title: string;
  readonly text: (row: Row) => string;
  readonly align?: Align;
  /** Shown only with `-o wide`. */
  readonly wide?: boolean;
}

const GAP = "   ";

export function table<Row>(
  columns: readonly Column<Row>[],
  rows: readonly Row[],
  wide = false,
): string {
  const shown = columns.filter((column) => wide || column.wide !== true);
  const cells = [
    shown.map((column) => column.title),
    ...rows.map((row) => shown.map((column) => clean(column.text(row)))),
  ];
  const widths = shown.map((_, i) => Math.max(...cells.map((line) => Bun.stringWidth(line[i]!))));
  return cells.map((line) => `${alignLine(line, shown, widths)}\n`).join("");
}

function alignLine(
  line: readonly string[],
  columns: readonly { readonly align?: Align }[],
  widths: readonly number[],
): string {
  return line
    .map((cell, i) => {
      const space = " ".repeat(widths[i]! - Bun.stringWidth(cell));
      return columns[i]!.align === "right" ? space + cell : cell + space;
    })
    .join(GAP)
    .trimEnd();
}

/** Control characters from the outside must not move a cursor; colours are ours. */
function clean(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is removed
  return text === "" ? "-" : text.replace(/[\x00-\x1a\x1c-\x1f\x7f]|\x1b(?!\[[0-9;]*m)/g, "?");
}

/** `4d`, `3h`, `25m`, `12s`: how long ago, to one unit. */
export function age(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return `${seconds}s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)}m`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)}h`;
  return `${Math.round(seconds / 86_400)}d`;
}
