/** `weft nats config`: what a nats-server of one's own needs to know of this mesh. */
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { externalNatsConfig } from "../../src/bus/nats-config.ts";
import { EXIT, Failure } from "../../src/error.ts";
import { openNatsAuthority } from "../../src/identity/nats-auth.ts";
import { STORE_FILE } from "../../src/store/backup.ts";
import { dataFolder } from "./locate.ts";
import type { Session } from "./session.ts";

/** The keys are made here when the control plane has not run yet: NATS may be set up first. */
export async function natsConfig(session: Session): Promise<number> {
  const data = dataFolder(session.settings, session.env, process.getuid?.() ?? 0);
  const seed = join(data, "keys", "nats.seed");
  if (existsSync(join(data, STORE_FILE)) && !existsSync(seed)) {
    throw new Failure(
      "keys_missing",
      `${seed} is missing, but the mesh of this data folder uses it`,
      "put it back from a backup made with --keys, or start the control plane first",
    );
  }
  mkdirSync(data, { recursive: true, mode: 0o700 });
  const { trust } = openNatsAuthority(seed);
  session.terminal.out(externalNatsConfig(trust));
  return EXIT.ok;
}
