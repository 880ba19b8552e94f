/** `weft delete`: by kind and name, or whatever a file names. */
import type { ApplyAnswer } from "../../src/api/answers.ts";
import { parseSources } from "../../src/config/parse.ts";
import type { Resource } from "../../src/config/resource.ts";
import { EXIT } from "../../src/error.ts";
import { usage } from "../grammar.ts";
import { change } from "./apply.ts";
import { printIssues } from "./issues.ts";
import { readKind, readKindAndName, resourcePath } from "./kinds.ts";
import type { Session, Typed } from "./session.ts";
import { readSources } from "./sources.ts";
import { typedText, typedTexts, typedToggle } from "./typed.ts";

export async function remove(
  session: Session,
  args: readonly string[],
  typed: Typed,
): Promise<number> {
  const paths = await pathsToDelete(session, args, typed);
  if (paths === undefined) return EXIT.refused;
  const query = new URLSearchParams();
  if (typedToggle(typed, "cascade")) query.set("cascade", "true");
  const message = typedText(typed, "message");
  if (message !== undefined) query.set("message", message);
  const tail = query.size === 0 ? "" : `?${query}`;
  for (const path of paths) {
    const done = await change(session, (client) => client.remove<ApplyAnswer>(path + tail));
    if (done === undefined) return EXIT.refused;
  }
  return EXIT.ok;
}

async function pathsToDelete(
  session: Session,
  args: readonly string[],
  typed: Typed,
): Promise<readonly string[] | undefined> {
  const files = typedTexts(typed, "file");
  if (files.length > 0) {
    const sources = await readSources(files, session.terminal);
    const { resources, issues } = parseSources(sources);
    if (issues.length > 0) {
      printIssues(session.terminal, issues, sources);
      return undefined;
    }
    return resources
      .map(({ resource }) => resource)
      .sort((a, b) => depth(b) - depth(a))
      .map(({ kind, metadata }) => resourcePath(readKind(kind), metadata.namespace, metadata.name));
  }
  const first = args[0];
  const asked = first === undefined ? undefined : readKindAndName(first, args[1]);
  if (asked?.name === undefined) {
    throw usage("delete what?", "weft delete httproute reviews, or weft delete -f FILE");
  }
  return [resourcePath(asked.kind, session.namespace, asked.name)];
}

/** What refers to others goes before what is referred to. */
function depth(resource: Resource): number {
  return { HTTPRoute: 3, TrafficPolicy: 2, Workload: 2, Service: 1, Mesh: 0, Process: 0 }[
    resource.kind
  ];
}
