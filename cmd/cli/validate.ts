/** `weft validate`: the checks of an apply, against these documents alone, with nothing running. */
import { parseSources } from "../../src/config/parse.ts";
import { validateSet } from "../../src/config/validate.ts";
import { EXIT } from "../../src/error.ts";
import { printIssues } from "./issues.ts";
import type { Session, Typed } from "./session.ts";
import { readSources } from "./sources.ts";
import { typedTexts, typedToggle } from "./typed.ts";

export async function validate(session: Session, typed: Typed): Promise<number> {
  const sources = await readSources(typedTexts(typed, "file"), session.terminal);
  const { resources, issues } = parseSources(sources);
  const set = resources.map((parsed) => parsed.resource);
  const all = [
    ...issues,
    ...validateSet(set, resources, { lenient: typedToggle(typed, "lenient") }),
  ];
  if (all.length > 0) {
    printIssues(session.terminal, all, sources, "");
    return EXIT.refused;
  }
  const count = resources.length === 1 ? "1 document" : `${resources.length} documents`;
  session.terminal.err(`√ ${count}, no problems\n`);
  return EXIT.ok;
}
