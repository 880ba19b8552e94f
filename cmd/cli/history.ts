/** `weft history` and `weft rollback`. */
import type { ApplyAnswer, RevisionAnswer } from "../../src/api/answers.ts";
import { EXIT } from "../../src/error.ts";
import { usage } from "../grammar.ts";
import { change } from "./apply.ts";
import { getAll } from "./client.ts";
import { printListing } from "./list.ts";
import type { Session, Typed } from "./session.ts";
import { age, type Column } from "./table.ts";
import {
  LIST_FORMATS,
  readRevision,
  typedDuration,
  typedFormat,
  typedShare,
  typedText,
  typedToggle,
} from "./typed.ts";
import { waitForRevision } from "./wait-revision.ts";

export async function history(session: Session, typed: Typed): Promise<number> {
  const format = typedFormat(typed, LIST_FORMATS);
  const limitText = typedText(typed, "limit") ?? "20";
  if (!/^[1-9]\d{0,5}$/.test(limitText)) {
    throw usage(`--limit: "${limitText}" is not a count`, "for example --limit 100");
  }
  const limit = Number(limitText);
  const client = await session.client();
  const path = `/v1/revisions?limit=${Math.min(limit, 100)}`;
  const revisions = await getAll<RevisionAnswer>(client, path, limit);
  printListing(
    session.terminal,
    {
      columns: columns(session.terminal.now()),
      rows: revisions,
      nameOf: ({ revision }) => String(revision),
      value: revisions,
      empty: "no revisions yet; weft apply makes the first",
    },
    format,
  );
  return EXIT.ok;
}

function columns(now: number): readonly Column<RevisionAnswer>[] {
  return [
    { title: "REVISION", text: ({ revision }) => String(revision), align: "right" },
    { title: "AGE", text: ({ t }) => age(now - t), align: "right" },
    { title: "AUTHOR", text: ({ author }) => author },
    { title: "CHANGES", text: summary },
    { title: "MESSAGE", text: ({ message }) => message },
    { title: "HASH", text: ({ hash }) => hash.slice(0, 12), wide: true },
    { title: "BUS", text: ({ busRev }) => String(busRev ?? "pending"), wide: true },
    { title: "TIME", text: ({ t }) => new Date(t).toISOString(), wide: true },
  ];
}

function summary({ changes }: RevisionAnswer): string {
  const marks = { create: "+", update: "~", delete: "-" } as const;
  const shown = changes.slice(0, 3).map(({ key, op }) => `${marks[op]}${key}`);
  const rest = changes.length - shown.length;
  return shown.join(" ") + (rest > 0 ? ` and ${rest} more` : "");
}

export async function rollback(
  session: Session,
  args: readonly string[],
  typed: Typed,
): Promise<number> {
  const to = readRevision(args[0], "rollback");
  const share = typedShare(typed);
  const timeoutMs = typedDuration(typed, "timeout", 60_000);
  const message = typedText(typed, "message");
  const done = await change(session, (client) =>
    client.post<ApplyAnswer>("/v1/rollback", {
      to,
      dryRun: typedToggle(typed, "dryRun"),
      ...(message === undefined ? {} : { message }),
    }),
  );
  if (done === undefined) return EXIT.refused;
  if (share === undefined || done.answer.dryRun) return EXIT.ok;
  const { client, answer } = done;
  const { terminal } = session;
  return waitForRevision({ client, terminal, revision: answer.revision, share, timeoutMs });
}
