/** Rounds that keep the store small and notice when its file vanishes. */
import { certificateLives, pruneCertificates } from "../../src/store/certificates.ts";
import type { Store } from "../../src/store/store.ts";
import { forgetWorkloads, idleWorkloads } from "../../src/store/workloads.ts";
import type { Logger } from "../../src/telemetry/log.ts";

const LOOK_MS = 2_000;
const PRUNE_MS = 600_000;
/** Certificates are remembered this long after they ran out. */
const KEEP_MS = 7 * 86_400_000;

/** Starts the rounds; gives the way to stop them. */
export function tidyUp(store: Store, now: () => number, log: Logger): () => void {
  let told = false;
  const look = setInterval(() => {
    if (told || store.present()) return;
    told = true;
    log.error(`${store.path} was deleted; nothing can be changed any more`, {
      fix: "stop the control plane and run: weft restore BACKUP",
    });
  }, LOOK_MS);
  const prune = setInterval(() => {
    try {
      forget(store, now());
    } catch (error) {
      log.warn("cannot tidy the store", { error });
    }
  }, PRUNE_MS);
  return () => {
    clearInterval(look);
    clearInterval(prune);
  };
}

/** An instance that is not registered and whose certificates ran out has to join again anyway. */
export function forget(store: Store, now: number): void {
  const lives = certificateLives(store);
  const gone = idleWorkloads(store, now)
    .filter(({ instance }) => (lives.get(instance)?.notAfter ?? 0) < now)
    .map(({ instance }) => instance);
  store.write(() => {
    if (gone.length > 0) forgetWorkloads(store, gone);
    pruneCertificates(store, now - KEEP_MS);
  });
}
