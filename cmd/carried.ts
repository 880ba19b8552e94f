/** The nats-server inside this executable, if the build could get one. */
import { statSync } from "node:fs";

/** A path that can be read (not executed: copy it out first), or undefined. */
export async function carriedNatsServer(): Promise<string | undefined> {
  try {
    const { default: path } = await import("../build/nats-server", { with: { type: "file" } });
    // The build puts an empty file in the place of one it could not fetch.
    return statSync(path).size > 0 ? path : undefined;
  } catch {
    return undefined;
  }
}
