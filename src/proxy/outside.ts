/** Hosts outside of the mesh that no document names, where the mesh allows them. */
import type { HostNames } from "../net/host-names.ts";
import type { TrafficPolicyDocument } from "../snapshot/document.ts";
import type { Target } from "../snapshot/snapshot.ts";

export type Outside =
  | { readonly kind: "target"; readonly target: Target }
  | { readonly kind: "refused"; readonly why: string };

const POLICY: TrafficPolicyDocument = {
  balancer: "random",
  connectTimeoutMs: 3000,
  requestTimeoutMs: 0,
  perTryTimeoutMs: 0,
  idleTimeoutMs: 4000,
  retries: {
    attempts: 1,
    on: ["connect_failure"],
    codes: [],
    backoffMs: 25,
    budgetPercent: 20,
    budgetMinConcurrency: 3,
  },
  maxConnections: 1024,
  maxPending: 1024,
};

const TARGETS_MAX = 1000;

export class OutsideHosts {
  readonly #names: HostNames;
  /** One object for as long as the addresses are the same. */
  readonly #targets = new Map<string, Target>();

  constructor(names: HostNames) {
    this.#names = names;
  }

  async find(host: string, port: number): Promise<Outside> {
    const found = await this.#names.find(host, port);
    if (found.kind === "refused") return found;
    const key = `outside/${host}:${port}`;
    const known = this.#targets.get(key);
    const same = known?.endpoints.map(({ address }) => address).join() === found.addresses.join();
    if (known !== undefined && same) return { kind: "target", target: known };
    const target = targetOf(key, port, found.addresses);
    if (this.#targets.size >= TARGETS_MAX) this.#targets.clear();
    this.#targets.set(key, target);
    return { kind: "target", target };
  }
}

function targetOf(key: string, port: number, addresses: readonly string[]): Target {
  return {
    key,
    namespace: "outside",
    service: "any",
    port,
    subset: undefined,
    protocol: "tcp",
    sni: "",
    endpoints: addresses.map((address) => ({
      ...{ id: address, address, ports: { [String(port)]: port }, labels: {} },
      ...{ locality: "", weight: 1 },
    })),
    policy: POLICY,
  };
}
