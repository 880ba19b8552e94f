/**
 * Names of hosts outside of the mesh to addresses that may be dialled. What is judged is the
 * address, not the name: a name that leads back to this host is no way around its own rules.
 */
import { isIP } from "node:net";
import { networkInterfaces } from "node:os";

export type Found =
  | { readonly kind: "addresses"; readonly addresses: readonly string[] }
  | { readonly kind: "refused"; readonly why: string };

export interface HostNamesOptions {
  /** All addresses of a name; rejects when it has none, or nobody can say. */
  lookup(host: string): Promise<readonly string[]>;
  /** weft's own ports on this host: never dialled there. */
  readonly ownPorts: ReadonlySet<number>;
  /** Monotonic milliseconds. */
  readonly now: () => number;
  /** Addresses that are never dialled; absent: `isForbidden`. */
  readonly forbidden?: (address: string) => boolean;
}

/** The system's resolver tells no time to live: an answer is asked for again after this long. */
const FRESH_MS = 30_000;
/** After a failure; meanwhile the last good answer is used. */
const RETRY_MS = 5000;
const NAMES_MAX = 1000;

interface Known {
  /** Empty: there has been no good answer. */
  readonly addresses: readonly string[];
  readonly until: number;
}

export class HostNames {
  readonly #options: HostNamesOptions;
  /** Oldest first. */
  readonly #known = new Map<string, Known>();
  readonly #asking = new Map<string, Promise<Known>>();

  constructor(options: HostNamesOptions) {
    this.#options = options;
  }

  /**
   * Addresses of a host name or an IP address (in brackets or not) that `port` may be dialled at.
   * Only the first question waits for the resolver: later ones get the answer at hand.
   */
  async find(host: string, port: number): Promise<Found> {
    const literal = host.startsWith("[") ? host.slice(1, -1) : host;
    if (isIP(literal) !== 0) return this.#judge(host, [literal], port);
    const known = this.#known.get(host);
    const stale = known === undefined || this.#options.now() >= known.until;
    const asked = stale ? this.#ask(host) : undefined;
    const { addresses } =
      known !== undefined && known.addresses.length > 0 ? known : ((await asked) ?? known!);
    if (addresses.length === 0) return { kind: "refused", why: `${host} has no address` };
    return this.#judge(host, addresses, port);
  }

  #ask(host: string): Promise<Known> {
    const asking = this.#asking.get(host);
    if (asking !== undefined) return asking;
    const asked = this.#lookup(host).finally(() => this.#asking.delete(host));
    this.#asking.set(host, asked);
    return asked;
  }

  async #lookup(host: string): Promise<Known> {
    const { now, lookup } = this.#options;
    let addresses: readonly string[] = [];
    try {
      addresses = [...new Set(await lookup(host))];
    } catch {
      // Told apart by the empty list.
    }
    const good = addresses.length > 0;
    const known: Known = {
      addresses: good ? addresses : (this.#known.get(host)?.addresses ?? []),
      until: now() + (good ? FRESH_MS : RETRY_MS),
    };
    this.#known.delete(host);
    if (this.#known.size >= NAMES_MAX) this.#known.delete(this.#known.keys().next().value ?? "");
    this.#known.set(host, known);
    return known;
  }

  #judge(host: string, addresses: readonly string[], port: number): Found {
    const { ownPorts, forbidden = isForbidden } = this.#options;
    const own = ownPorts.has(port);
    const allowed = addresses.filter(
      (address) => !forbidden(address) && !(own && isLocal(address)),
    );
    if (allowed.length > 0) return { kind: "addresses", addresses: allowed };
    return { kind: "refused", why: `${host} is an address of this host or its link` };
  }
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

/** True also where the host does not tell: then nothing leads to weft's own ports. */
function isLocal(address: string): boolean {
  try {
    const lists = Object.values(networkInterfaces());
    return lists.some((list) => list?.some((entry) => entry.address === address));
  } catch {
    return true;
  }
}
