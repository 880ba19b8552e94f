/** `weft delete`: by kind and name, or whatever files name; all or nothing, one revision. */
import type { ApplyAnswer } from "../../src/api/answers.ts";
import { parseSources } from "../../src/config/parse.ts";
import { resourceKey } from "../../src/config/resource.ts";
import { EXIT } from "../../src/error.ts";
import { usage } from "../grammar.ts";
import { change } from "./apply.ts";
import { printIssues } from "./issues.ts";
import { readKindAndName } from "./kinds.ts";
import type { Session, Typed } from "./session.ts";
import { readSources } from "./sources.ts";
import { typedText, typedTexts, typedToggle } from "./typed.ts";

export async function remove(
  session: Session,
  args: readonly string[],
  typed: Typed,
): Promise<number> {
  const files = typedTexts(typed, "file");
  const keys = files.length > 0 ? await keysIn(session, files) : [keyOf(session, args)];
  if (keys === undefined) return EXIT.refused;
  const message = typedText(typed, "message");
  const done = await change(session, (client) =>
    client.post<ApplyAnswer>("/v1/delete", {
      keys,
      cascade: typedToggle(typed, "cascade"),
      dryRun: typedToggle(typed, "dryRun"),
      ...(message === undefined ? {} : { message }),
    }),
  );
  return done === undefined ? EXIT.refused : EXIT.ok;
}

async function keysIn(
  session: Session,
  files: readonly string[],
): Promise<readonly string[] | undefined> {
  const sources = await readSources(files, session.terminal);
  const { resources, issues } = parseSources(sources);
  if (issues.length === 0) return resources.map(({ resource }) => resourceKey(resource));
  printIssues(session.terminal, issues, sources);
  return undefined;
}

function keyOf(session: Session, args: readonly string[]): string {
  const first = args[0];
  const asked = first === undefined ? undefined : readKindAndName("delete", first, args[1]);
  if (asked?.name === undefined) {
    throw usage("delete what?", "weft delete httproute reviews, or weft delete -f FILE");
  }
  const namespace = asked.kind === "Mesh" ? "" : session.namespace;
  return resourceKey({ kind: asked.kind, metadata: { name: asked.name, namespace } });
}
