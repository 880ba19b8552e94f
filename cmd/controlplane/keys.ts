/** A mesh without one of its keys must not get a new one in silence: everybody would have to join. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { EXIT, Failure } from "../../src/error.ts";
import { setting } from "../../src/store/settings.ts";
import type { Store } from "../../src/store/store.ts";
import { listTokens } from "../../src/store/tokens.ts";

const KEYS = ["ca.key", "config.key", "nats.seed"] as const;

/**
 * Where the data folder has its keys.
 *
 * @param renewed the operator says that missing ones may be made anew.
 * @throws Failure `keys_missing`.
 */
export function keysOf(
  store: Store,
  data: string,
  renewed: boolean,
): Readonly<Record<(typeof KEYS)[number], string>> {
  const at = (name: string) => join(data, "keys", name);
  const missing = KEYS.filter((name) => !existsSync(at(name)));
  // The first token is made after the keys: without it the first start was not finished.
  const begun = listTokens(store, "", 1).length > 0;
  if (missing.length === 0 || !begun || renewed || setting(store, "restored") !== undefined) {
    return { "ca.key": at("ca.key"), "config.key": at("config.key"), "nats.seed": at("nats.seed") };
  }
  throw new Failure(
    "keys_missing",
    `${missing.map(at).join(", ")} is missing, but the mesh of this data folder uses it`,
    "put it back from a backup made with --keys; for new keys, with which every proxy has to " +
      "join again: start once with --restored",
    { exit: EXIT.refused },
  );
}
