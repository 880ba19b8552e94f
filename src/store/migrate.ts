/** Brings the tables up to date; `user_version` counts the steps that were taken. */
import type { Database } from "bun:sqlite";
import { Failure } from "../error.ts";
import start from "./0001-start.sql" with { type: "text" };

const STEPS: readonly string[] = [start];

/** Each step is one transaction: a crash in the middle leaves the step undone. */
export function migrate(client: Database, path: string): void {
  const { user_version: done } = client.query("PRAGMA user_version").get() as {
    user_version: number;
  };
  if (done > STEPS.length) {
    throw new Failure(
      "store_newer",
      `${path} was written by a newer weft (format ${done}, this one knows ${STEPS.length})`,
      "use the newer executable, or restore a backup made by this one",
    );
  }
  for (const [offset, sql] of STEPS.slice(done).entries()) {
    client.transaction(() => {
      client.run(sql);
      client.run(`PRAGMA user_version = ${done + offset + 1}`);
    })();
  }
}
