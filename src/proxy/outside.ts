/**
 * Hosts outside of the mesh, where the mesh allows them. What is checked is the address that will
 * be dialled, not the name: a name that resolves to this host is no way around its own rules.
 */
import { isIP } from "node:net";
import { networkInterfaces } from "node:os";
import type { TrafficPolicyDocument } from "../snapshot/document.ts";
import type { Target } from "../snapshot/snapshot.ts";

export interface OutsideOptions {
  /** All addresses of a name. */
  lookup(host: string): Promise<readonly string[]>;
  /** weft's own ports on this host: never dialled. */
  readonly ownPorts: ReadonlySet<number>;
  readonly now: () => number;
}

export type Outside =
  | { readonly kind: "target"; readonly target: Target }
  | { readonly kind: "refused"; readonly why: string };

/** How long an answer of the resolver is used, milliseconds. */
const KEEP_MS = 10_000;
const KEEP_MAX = 1000;

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

export class OutsideHosts {
  readonly #options: OutsideOptions;
  readonly #known = new Map<string, { readonly until: number; readonly found: Promise<Outside> }>();

  constructor(options: OutsideOptions) {
    this.#options = options;
  }

  find(host: string, port: number): Promise<Outside> {
    const key = `${host}:${port}`;
    const now = this.#options.now();
    const known = this.#known.get(key);
    if (known !== undefined && now < known.until) return known.found;
    if (this.#known.size >= KEEP_MAX) this.#known.clear();
    const found = this.#resolve(host, port);
    this.#known.set(key, { until: now + KEEP_MS, found });
    return found;
  }

  async #resolve(host: string, port: number): Promise<Outside> {
    const literal = host.startsWith("[") ? host.slice(1, -1) : host;
    let addresses: readonly string[];
    try {
      addresses = isIP(literal) === 0 ? await this.#options.lookup(host) : [literal];
    } catch {
      return { kind: "refused", why: `${host} has no address` };
    }
    const own = this.#options.ownPorts.has(port);
    const allowed = addresses.filter(
      (address) => !isForbidden(address) && !(own && isLocal(address)),
    );
    if (allowed.length === 0) {
      return { kind: "refused", why: `${host} is an address of this host or its link` };
    }
    return { kind: "target", target: targetOf(host, port, allowed) };
  }
}

function targetOf(host: string, port: number, addresses: readonly string[]): Target {
  return {
    key: `outside/${host}:${port}`,
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

/** Loopback, link-local and unspecified addresses, also in IPv6 clothes. */
export function isForbidden(address: string): boolean {
  const lower = address.toLowerCase();
  const mapped = /^::(?:ffff:)?(\d+\.\d+\.\d+\.\d+)$/.exec(lower)?.[1];
  if (mapped !== undefined) return isForbidden(mapped);
  switch (isIP(lower)) {
    case 4:
      return /^(?:0|127|169\.254)\./.test(lower);
    case 6:
      // Mapped addresses in hexadecimal are refused whole: nobody needs them.
      return /^(?:::1?$|::ffff:|fe[89ab])/.test(lower) || /^0*:/.test(lower);
    default:
      return true;
  }
}

function isLocal(address: string): boolean {
  return Object.values(networkInterfaces()).some((list) =>
    list?.some((entry) => entry.address === address),
  );
}
