/** `weft forget`: ends an instance's membership of the mesh. */
import { EXIT } from "../../src/error.ts";
import type { Session } from "./session.ts";

export async function forget(session: Session, args: readonly string[]): Promise<number> {
  const instance = args[0] ?? "";
  const client = await session.client();
  await client.remove(`/v1/workloads/${encodeURIComponent(instance)}`);
  session.terminal.out(`${instance} forgotten\n`);
  session.terminal.err(
    "it can join again with a token that is still good: weft token revoke\n" +
      "other proxies take its certificate until that ends: weft controlplane --svid-ttl\n",
  );
  return EXIT.ok;
}
