/** `weft diff`: what an apply would change, or what lies between two revisions. */
import type { ApplyAnswer, ChangeAnswer, DiffAnswer, Page } from "../../src/api/answers.ts";
import { EXIT } from "../../src/error.ts";
import { usage } from "../grammar.ts";
import { reporting } from "./apply.ts";
import { documentDiff } from "./line-diff.ts";
import type { Session, Typed } from "./session.ts";
import { readSources } from "./sources.ts";
import { paint, type Terminal } from "./terminal.ts";
import { readRevision, typedTexts } from "./typed.ts";

export async function diff(
  session: Session,
  args: readonly string[],
  typed: Typed,
): Promise<number> {
  const files = typedTexts(typed, "file");
  if (files.length === 0 && args[0] === undefined) {
    throw usage("diff of what?", "weft diff -f FILE, or weft diff REVISION [REVISION]");
  }
  const client = await session.client();
  if (files.length === 0) {
    const from = readRevision(args[0], "diff");
    const to = args[1] === undefined ? await newest(session) : readRevision(args[1], "diff");
    const answer = await client.get<DiffAnswer>(`/v1/diff?from=${from}&to=${to}`);
    printDiffs(session.terminal, answer.items);
    return answer.items.length === 0 ? EXIT.ok : EXIT.failed;
  }
  const sources = await readSources(files, session.terminal);
  const answer = await reporting(session.terminal, sources, () =>
    client.post<ApplyAnswer>("/v1/apply", { sources, dryRun: true }),
  );
  if (answer === undefined) return EXIT.refused;
  printDiffs(session.terminal, answer.changes);
  return answer.changes.length === 0 ? EXIT.ok : EXIT.failed;
}

async function newest(session: Session): Promise<number> {
  const client = await session.client();
  const page = await client.get<Page<{ readonly revision: number }>>("/v1/revisions?limit=1");
  return page.items[0]?.revision ?? 0;
}

function printDiffs(terminal: Terminal, changes: readonly ChangeAnswer[]): void {
  if (changes.length === 0) terminal.err("no difference\n");
  for (const { key, before, after } of changes) {
    const from = before === "" ? "/dev/null" : key;
    const to = after === "" ? "/dev/null" : key;
    terminal.out(paint(terminal, "bold", `--- ${from}\n+++ ${to}`));
    terminal.out("\n");
    for (const { mark, text } of documentDiff(before, after)) {
      const line = `${mark}${text}`;
      const shown = mark === " " ? line : paint(terminal, mark === "+" ? "green" : "red", line);
      terminal.out(`${shown}\n`);
    }
  }
}
