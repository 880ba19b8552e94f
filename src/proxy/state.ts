/** What all connections of one proxy process share. */
import type { HostNames } from "../net/host-names.ts";
import type { Relays } from "../net/relays.ts";
import type { Room } from "../net/room.ts";
import type { AccessLog } from "../telemetry/access-log.ts";
import type { Golden } from "../telemetry/golden.ts";

export interface ProxyState {
  /** Monotonic milliseconds. */
  readonly now: () => number;
  readonly random: () => number;
  readonly golden: Golden;
  readonly accessLog: AccessLog | undefined;
  /** Each direction has its own, so that neither can use up the other's. */
  readonly rooms: Readonly<Record<"inbound" | "outbound", Room>>;
  readonly names: HostNames;
  /** So many bytes wait for receivers that nothing more is begun, although the slowest made way. */
  readonly flooded: () => boolean;
  /** Who begins connections to local listeners with a PROXY header; undefined = nobody. */
  readonly relays: Relays | undefined;
  /** Answers carry `Connection: close`, and no connection is kept. */
  draining: boolean;
  /** Open callers, for ticks and for draining. */
  readonly open: Set<Ticking>;
}

export interface Ticking {
  readonly direction: "inbound" | "outbound";
  /** `<namespace>/<service>` of the local workload. */
  readonly workload: string;
  /** Called once a second. */
  tick(): void;
  /** Bytes held because of it. */
  readonly pendingBytes: number;
  /** Nothing is under way. */
  readonly idle: boolean;
  /** Closes when nothing is under way; drops everything when `force`. */
  shut(force: boolean): void;
}

/** What a request hears that is not begun. */
export const FLOODED = "this proxy holds too much for slow receivers";

/** What a request hears whose source has too much of the room. */
export const GREEDY = "this caller has too many connections and requests under way";
