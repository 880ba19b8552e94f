/** What changed between two revisions, as people read documents. */
import { toYaml } from "../config/to-yaml.ts";
import type { Change } from "../store/rows.ts";
import type { Store } from "../store/store.ts";
import { changesBetween, setAt } from "./changes.ts";

export interface DocumentDiff {
  readonly key: string;
  readonly op: Change["op"];
  /** YAML; "" where the document does not exist. */
  readonly before: string;
  readonly after: string;
}

/** @throws Failure `unknown_revision` (404). */
export function diffRevisions(store: Store, from: number, to: number): DocumentDiff[] {
  return changesBetween(setAt(store, from), setAt(store, to)).map(diffOf);
}

export function diffOf(change: Change): DocumentDiff {
  return {
    key: change.key,
    op: change.op,
    before: change.before === undefined ? "" : toYaml(change.before),
    after: change.after === undefined ? "" : toYaml(change.after),
  };
}
