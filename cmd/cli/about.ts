/** `weft version`. */
import { EXIT } from "../../src/error.ts";
import { COMMIT, VERSION } from "../version.ts";
import type { Session, Typed } from "./session.ts";
import { typedFormat } from "./typed.ts";

export async function version(session: Session, typed: Typed): Promise<number> {
  const about = {
    version: VERSION,
    commit: COMMIT,
    runtime: `bun ${Bun.version}`,
    platform: `${process.platform}-${process.arch}`,
  };
  if (typedFormat(typed, ["text", "json"]) === "json") {
    session.terminal.out(`${JSON.stringify(about, null, 2)}\n`);
  } else {
    session.terminal.out(
      `weft ${about.version} (${about.commit}), ${about.runtime}, ${about.platform}\n`,
    );
  }
  return EXIT.ok;
}
