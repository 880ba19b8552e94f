/** `weft nats config`: what a nats-server of one's own needs to know of this mesh. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { externalNatsConfig } from "../../src/bus/nats-config.ts";
import { EXIT } from "../../src/error.ts";
import { openNatsAuthority } from "../../src/identity/nats-auth.ts";
import { dataFolder } from "./locate.ts";
import type { Session } from "./session.ts";

/** The keys are made here when the control plane has not run yet: NATS may be set up first. */
export async function natsConfig(session: Session): Promise<number> {
  const data = dataFolder(session.settings, session.env, process.getuid?.() ?? 0);
  mkdirSync(data, { recursive: true, mode: 0o700 });
  const { trust } = openNatsAuthority(join(data, "keys", "nats.seed"));
  session.terminal.out(externalNatsConfig(trust));
  return EXIT.ok;
}
