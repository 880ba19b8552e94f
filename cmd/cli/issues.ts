/** What is wrong with documents, as compilers say it: place, field, reason, fix, and the line. */
import type { Issue, Source } from "../../src/config/resource.ts";
import { paint, type Terminal } from "./terminal.ts";

export function printIssues(
  terminal: Terminal,
  issues: readonly Issue[],
  sources: readonly Source[],
  outcome = "; nothing was changed",
): void {
  for (const issue of issues) {
    terminal.err(`${issueLine(issue)}\n`);
    if (terminal.errWatched) terminal.err(excerpt(terminal, issue, sources));
  }
  const count = issues.length === 1 ? "1 problem" : `${issues.length} problems`;
  terminal.err(`${paint(terminal, "red", "error:")} ${count}${outcome}\n`);
}

/** `file:line:column: path: reason (value) — fix`. */
export function issueLine(issue: Issue): string {
  const place = issue.line > 0 ? `${issue.source}:${issue.line}:${issue.column}` : issue.source;
  const path = issue.path === "" ? "" : `${issue.path}: `;
  const value = issue.value === "" ? "" : ` (${issue.value})`;
  const fix = issue.fix === "" ? "" : ` — ${issue.fix}`;
  return `${place}: ${path}${issue.reason}${value}${fix}`;
}

function excerpt(terminal: Terminal, issue: Issue, sources: readonly Source[]): string {
  const source = sources.find((candidate) => candidate.name === issue.source);
  const line = source?.text.split("\n", issue.line)[issue.line - 1];
  if (line === undefined || issue.line < 1) return "";
  // Tabs would put the caret elsewhere; a long line is cut around it.
  const shown = line.replaceAll("\t", " ");
  const from = Math.max(0, issue.column - 60);
  const cut = shown.slice(from, from + 100);
  const gutter = String(issue.line).padStart(5);
  const caret = " ".repeat(Math.max(0, Bun.stringWidth(shown.slice(from, issue.column - 1))));
  const bar = paint(terminal, "dim", "|");
  return `${gutter} ${bar} ${cut}\n      ${bar} ${caret}${paint(terminal, "red", "^")}\n`;
}
