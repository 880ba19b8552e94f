/** Waits until proxies have acknowledged a revision. */
import type { ProxyAnswer, StatusAnswer } from "../../src/api/answers.ts";
import { EXIT, Failure } from "../../src/error.ts";
import type { Client } from "./client.ts";
import { paint, type Terminal } from "./terminal.ts";

export interface RevisionWait {
  readonly client: Client;
  readonly terminal: Terminal;
  readonly revision: number;
  /** Of the proxies that are up, 0 to 1. */
  readonly share: number;
  readonly timeoutMs: number;
}

const POLL_MS = 50;

export async function waitForRevision(wait: RevisionWait): Promise<number> {
  const { client, terminal, revision, share, timeoutMs } = wait;
  const startedAt = terminal.now();
  let seen = -1;
  for (;;) {
    const proxies = living(await client.get<StatusAnswer>("/v1/status"));
    const have = proxies.filter((proxy) => proxy.revision >= revision);
    const need = Math.ceil(proxies.length * share);
    if (terminal.errWatched && have.length !== seen) {
      terminal.err(
        `\r\x1b[2K${have.length} of ${proxies.length} proxies have revision ${revision}`,
      );
      seen = have.length;
    }
    const refusal = refusalOf(proxies);
    if (have.length >= need) {
      if (terminal.errWatched) terminal.err("\r\x1b[2K");
      const ms = terminal.now() - startedAt;
      terminal.err(
        `${paint(terminal, "green", "√")} ${have.length} of ${proxies.length} proxies have ` +
          `revision ${revision} (${ms} ms)\n`,
      );
      return EXIT.ok;
    }
    if (terminal.now() - startedAt >= timeoutMs) {
      if (terminal.errWatched) terminal.err("\n");
      throw new Failure(
        "timed_out",
        `${proxies.length - have.length} of ${proxies.length} proxies have not acknowledged ` +
          `revision ${revision} in ${timeoutMs} ms${refusal}`,
        "weft status shows which; the revision stays applied",
        { exit: EXIT.timedOut },
      );
    }
    await terminal.sleep(POLL_MS);
  }
}

function living(status: StatusAnswer): readonly ProxyAnswer[] {
  return status.proxies.filter((proxy) => proxy.state !== "down");
}

function refusalOf(proxies: readonly ProxyAnswer[]): string {
  for (const proxy of proxies) {
    const first = proxy.refused[0];
    if (first === undefined) continue;
    return `; ${proxy.namespace}/${proxy.service} refused ${first.key}: ${first.reason}`;
  }
  return "";
}
