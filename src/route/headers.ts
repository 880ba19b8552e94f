/** Header edits of routes, compiled to what a codec needs: names to drop, text to append. */
import type { HeaderEdit } from "../snapshot/document.ts";

export interface CompiledEdit {
  /** Lower-case names whose fields are dropped: those removed and those set anew. */
  readonly drops: readonly string[];
  /** Field lines to append, each ending in CRLF; "" = none. */
  readonly lines: string;
}

const CHANGES = (edit: HeaderEdit | undefined): edit is HeaderEdit =>
  edit !== undefined && edit.set.length + edit.add.length + edit.remove.length > 0;

/**
 * One edit out of those of a rule and of the backend it chose, applied in this order: a later
 * `set` or `remove` also undoes what an earlier edit added. Undefined = nothing to do.
 */
export function compileEdits(
  ...edits: readonly (HeaderEdit | undefined)[]
): CompiledEdit | undefined {
  const effective = edits.filter(CHANGES);
  if (effective.length === 0) return undefined;
  const drops = new Set<string>();
  let fields: { readonly name: string; readonly value: string }[] = [];
  const drop = (name: string) => {
    const lower = name.toLowerCase();
    drops.add(lower);
    fields = fields.filter((field) => field.name.toLowerCase() !== lower);
  };
  for (const edit of effective) {
    for (const field of edit.set) {
      drop(field.name);
      fields.push(field);
    }
    fields.push(...edit.add);
    for (const name of edit.remove) drop(name);
  }
  return {
    drops: [...drops],
    lines: fields.map(({ name, value }) => `${name}: ${value}\r\n`).join(""),
  };
}
