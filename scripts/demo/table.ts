/** The live table: one line per edge, drawn in place where the terminal allows it. */
import { amountOf, difference, type Edge, quantile } from "./metrics.ts";

const COLUMNS = ["FROM", "TO", "SUCCESS", "RATE", "P50", "P99", "SPLIT", ""] as const;

function ms(seconds: number): string {
  return Number.isNaN(seconds) ? "–" : `${(seconds * 1000).toFixed(1)}ms`;
}

function short(name: string): string {
  return name.replace(/^default\//, "");
}

function splitOf(edge: Edge): string {
  const total = [...edge.subsets.values()].reduce((sum, count) => sum + count, 0);
  if (total === 0) return "";
  return [...edge.subsets]
    .sort(([a], [b]) => a.localeCompare(b))
    .map(([name, count]) => `${name} ${((100 * count) / total).toFixed(1)}%`)
    .join(" · ");
}

function row(edge: Edge, seconds: number): string[] {
  const success = edge.requests === 0 ? "–" : `${pct(edge.requests - edge.failed, edge.requests)}`;
  const rate =
    edge.protocol === "http"
      ? `${(edge.requests / seconds).toFixed(0)} rps`
      : `${(edge.bytes / seconds / 1024).toFixed(1)} KB/s`;
  const amount = amountOf(edge);
  const lock = edge.encrypted === amount ? "🔒" : "⚠ open";
  const name = [short(edge.source), short(edge.destination)];
  return [
    ...name,
    ...[success, rate, ms(quantile(edge, 0.5)), ms(quantile(edge, 0.99)), splitOf(edge)],
    amount === 0 ? "" : lock,
  ];
}

function pct(part: number, whole: number): string {
  return `${((100 * part) / whole).toFixed(2)}%`;
}

export function render(
  now: ReadonlyMap<string, Edge>,
  before: ReadonlyMap<string, Edge>,
  seconds: number,
): string {
  const rows = [...now]
    .sort(([a], [b]) => a.localeCompare(b))
    .map(([key, edge]) => row(difference(edge, before.get(key)), seconds));
  const widths = COLUMNS.map((title, column) =>
    Math.max(title.length, ...rows.map((cells) => Bun.stringWidth(cells[column] ?? ""))),
  );
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, column) => cell + " ".repeat((widths[column] ?? 0) - Bun.stringWidth(cell)))
      .join("  ")
      .trimEnd();
  return [line(COLUMNS), ...rows.map(line)].join("\n");
}

/** Redraws a block of lines in place on a terminal; elsewhere prints it every fifth time. */
export class Screen {
  #lines = 0;
  #frames = 0;
  readonly #live = process.stdout.isTTY;

  show(text: string): void {
    if (this.#live) {
      process.stdout.write(`${this.#lines > 0 ? `\x1b[${this.#lines}F\x1b[J` : ""}${text}\n`);
      this.#lines = text.split("\n").length;
    } else if (this.#frames++ % 5 === 0) {
      process.stdout.write(`${text}\n\n`);
    }
  }

  /** A line that stays above the table. */
  say(text: string): void {
    if (this.#live && this.#lines > 0) process.stdout.write(`\x1b[${this.#lines}F\x1b[J`);
    this.#lines = 0;
    process.stdout.write(`${text}\n`);
  }
}
