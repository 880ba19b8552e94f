/** Query parameters: every one named and typed by its route, each given at most once. */
import { refusal } from "./problem.ts";

export type QueryShape = Readonly<Record<string, "string" | "boolean" | "integer">>;

type Values = Readonly<Record<string, readonly string[]>>;

/**
 * Refuses what would otherwise be left out silently: `?dryrun=true` must not delete.
 *
 * @throws Failure 400.
 */
export function checkQuery(given: Values, known: QueryShape): void {
  for (const [name, values] of Object.entries(given)) {
    if (!Object.hasOwn(known, name)) {
      const names = Object.keys(known);
      const fix = names.length === 0 ? "leave it out" : `parameters here are ${names.join(", ")}`;
      throw invalid(`there is no parameter ${JSON.stringify(name)} here`, fix);
    }
    const [value = "", ...more] = values;
    if (more.length > 0) throw invalid(`${name} is given ${values.length} times`, "give it once");
    const type = known[name];
    if (type === "integer" && !/^\d{1,15}$/.test(value)) {
      throw invalid(`${name}=${value} is not a whole number`, `write ${name} in digits`);
    }
    if (type === "boolean" && value !== "true" && value !== "false") {
      throw invalid(`${name}=${value} is neither true nor false`, `write ${name}=true`);
    }
  }
}

export function invalid(message: string, fix: string) {
  return refusal(400, "invalid_query", message, fix);
}
