/** `weft apply`: documents become one revision, and `--wait` says when the proxies have it. */
import type { ApplyAnswer, ChangeAnswer, Problem } from "../../src/api/answers.ts";
import type { Source } from "../../src/config/resource.ts";
import { EXIT } from "../../src/error.ts";
import { type Client, Refused } from "./client.ts";
import { printIssues } from "./issues.ts";
import type { Session, Typed } from "./session.ts";
import { readSources } from "./sources.ts";
import { paint, type Terminal } from "./terminal.ts";
import {
  typedDuration,
  typedFormat,
  typedShare,
  typedText,
  typedTexts,
  typedToggle,
} from "./typed.ts";
import { waitForRevision } from "./wait-revision.ts";

export async function apply(session: Session, typed: Typed): Promise<number> {
  const { terminal } = session;
  const format = typedFormat(typed, ["name", "json"]);
  const share = typedShare(typed);
  const timeoutMs = typedDuration(typed, "timeout", 60_000);
  const sources = await readSources(typedTexts(typed, "file"), terminal);
  const client = await session.client();
  const message = typedText(typed, "message");
  const answer = await reporting(terminal, sources, () =>
    client.post<ApplyAnswer>("/v1/apply", {
      sources,
      dryRun: typedToggle(typed, "dryRun"),
      prune: typedToggle(typed, "prune"),
      lenient: typedToggle(typed, "lenient"),
      ...(message === undefined ? {} : { message }),
    }),
  );
  if (answer === undefined) return EXIT.refused;
  printChanges(terminal, answer, format);
  return share === undefined || answer.dryRun
    ? EXIT.ok
    : waitForRevision({ client, terminal, revision: answer.revision, share, timeoutMs });
}

/** Runs a change; issues in a refusal are printed with their place, and give undefined. */
export async function reporting<T>(
  terminal: Terminal,
  sources: readonly Source[],
  change: () => Promise<T>,
): Promise<T | undefined> {
  try {
    return await change();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    const { issues } = error.body as Partial<Problem>;
    if (issues === undefined || issues.length === 0) throw error;
    printIssues(terminal, issues, sources);
    return undefined;
  }
}

const DONE = { create: "created", update: "changed", delete: "deleted" } as const;
const COLOURS = { create: "green", update: "yellow", delete: "red" } as const;

/** One line per document on stdout, the revision on stderr. */
export function printChanges(
  terminal: Terminal,
  answer: ApplyAnswer,
  format: "name" | "json" = "name",
): void {
  if (format === "json") {
    terminal.out(`${JSON.stringify(answer, null, 2)}\n`);
    return;
  }
  for (const { key, op } of answer.changes) {
    terminal.out(`${key} ${paint(terminal, COLOURS[op], DONE[op])}\n`);
  }
  terminal.err(`${closing(answer.changes, answer)}\n`);
}

function closing(changes: readonly ChangeAnswer[], answer: ApplyAnswer): string {
  if (changes.length === 0) return `nothing changes; revision ${answer.revision} stands`;
  return answer.dryRun ? "dry run: nothing was changed" : `revision ${answer.revision}`;
}

/** For verbs that change by key instead of by documents. */
export async function change(
  session: Session,
  run: (client: Client) => Promise<ApplyAnswer>,
): Promise<{ readonly client: Client; readonly answer: ApplyAnswer } | undefined> {
  const client = await session.client();
  const answer = await reporting(session.terminal, [], () => run(client));
  if (answer === undefined) return undefined;
  printChanges(session.terminal, answer);
  return { client, answer };
}
