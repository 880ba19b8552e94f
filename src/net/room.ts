/**
 * The descriptors of one direction of a proxy: callers and the connections that their requests
 * need share them. A caller at rest takes one, a request under way a second one. Each of them is
 * spoken for before it is used: a process without any left can neither accept nor dial, and spins.
 */

import { guarded } from "./boundary.ts";
import { Shares, type Source } from "./shares.ts";

/** Who lets callers in. */
export interface Door {
  /** A place for a caller that counts as `name`, owed to `leave`. Undefined: there is none. */
  enter(name: string): Source | undefined;
  leave(source: Source): void;
}

/** Where unused connections are kept. */
export interface Keeper {
  /** When the oldest was last used, monotonic milliseconds; Infinity if there is none. */
  readonly oldest: number;
  /** Closes the oldest at once. */
  dropOldest(): void;
}

/** Somebody who needs a connection. */
export interface Claim {
  /** Takes one that was kept, if there is one that fits. */
  reuse(): boolean;
  /** May open one, and owes `release`. */
  granted(): void;
  /** There is no room. */
  refused(): void;
}

/** Descriptors that callers leave to those who are served: a share of all, and at least so many. */
const SPARE_SHARE = 1 / 32;
const SPARE_MIN = 8;
/** How long a claim waits at least, milliseconds; then a quarter of those in line are refused. */
const PATIENCE_MS = 250;
const REFUSED_SHARE = 1 / 4;
/** While callers are turned away for want of room, nobody keeps a place that they do not use. */
const CROWDED_IDLE_SECONDS = 1;
/** How long there is no place for callers that do nothing, once somebody was turned away, ticks. */
const CROWDED_TICKS = 5;

export class Room implements Door {
  readonly max: number;
  readonly #spare: number;
  readonly #shares = new Shares();
  /** Callers are not all one source, which then has nobody to leave anything to. */
  shared: boolean;
  /** Callers inside now. */
  open = 0;
  /** Connections of ours: being dialled, in use, kept. */
  #ours = 0;
  /** Of ours, those kept unused. Whoever keeps them counts them. */
  kept = 0;
  readonly keepers = new Set<Keeper>();
  #line: Claim[] = [];
  /** Of the claims in line, those that were there at the last look. */
  #seen = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #serving = false;
  #refused = 0;
  #refusedBefore = 0;
  #overShare = 0;
  #crowdedTicks = 0;

  /** `max`: descriptors, both kinds together. */
  constructor(max: number, shared = false) {
    this.max = max;
    this.shared = shared;
    this.#spare = Number.isFinite(max) ? Math.max(SPARE_MIN, Math.ceil(max * SPARE_SHARE)) : 0;
  }

  /** Callers turned away so far, at the door or with a request. */
  get refused(): number {
    return this.#refused + this.#overShare;
  }

  /** Somebody was turned away lately: who uses their place for nothing should go. */
  get crowded(): boolean {
    return this.#crowdedTicks > 0 || this.#refused !== this.#refusedBefore;
  }

  /** How long a caller may do nothing here who elsewhere may for `usual` seconds. */
  idleSeconds(usual: number): number {
    return this.crowded ? CROWDED_IDLE_SECONDS : usual;
  }

  /** Called once a second. */
  tick(): void {
    if (this.#refused !== this.#refusedBefore) this.#crowdedTicks = CROWDED_TICKS;
    else if (this.#crowdedTicks > 0) this.#crowdedTicks--;
    this.#refusedBefore = this.#refused;
  }

  enter(name: string): Source | undefined {
    const free = this.#free;
    const source = this.#shares.take(name, this.shared ? free : Number.POSITIVE_INFINITY);
    if (source === undefined) {
      this.#overShare++;
      return undefined;
    }
    if (free <= this.#spare || !this.#makeRoom()) {
      this.#shares.give(source);
      this.#refused++;
      return undefined;
    }
    this.open++;
    return source;
  }

  leave(source: Source): void {
    this.#shares.give(source);
    this.open--;
    this.kick();
  }

  /** A caller inside has proved who it is. False: too much is held by that one, so it must go. */
  identify(caller: { source: Source | undefined }, name: string): boolean {
    if (caller.source === undefined) return true;
    const source = this.#shares.take(name, this.shared ? this.#free + 1 : Number.POSITIVE_INFINITY);
    if (source === undefined) return false;
    this.#shares.give(caller.source);
    caller.source = source;
    return true;
  }

  /** A request of a caller begins, and owes `end`. False: too much is held by its source. */
  begin(source: Source): boolean {
    if (this.#greedy(source)) return false;
    source.held++;
    return true;
  }

  end(source: Source): void {
    this.#shares.give(source);
  }

  /** Others need the place of a caller that cannot be served more than it does. */
  tight(source: Source | undefined): boolean {
    return this.crowded || (source !== undefined && this.#greedy(source));
  }

  /** It has so much that the rest is for others. */
  #greedy(source: Source): boolean {
    return this.shared && !this.#shares.allows(source, this.#free);
  }

  /** Descriptors nobody uses, has claimed or waits for. */
  get #free(): number {
    return this.max - this.open - this.#ours + this.kept - this.#line.length;
  }

  /** Calls `granted` at once, or later one of `granted`, `reuse` (till true) and `refused`. */
  claim(claim: Claim): void {
    if (this.#line.length === 0 && this.#makeRoom()) {
      this.#ours++;
      claim.granted();
      return;
    }
    this.#line.push(claim);
    this.#wait();
  }

  /** Counts another connection of ours, of an address that is tried after one that failed. */
  readonly another = (): void => {
    this.#ours++;
  };

  /** A connection of ours is gone. */
  readonly release = (): void => {
    this.#ours--;
    this.kick();
  };

  /** Something has become free. Serves the line later: the caller is in the middle of a change. */
  kick(): void {
    if (this.#line.length === 0 || this.#serving) return;
    this.#serving = true;
    queueMicrotask(() => {
      this.#serving = false;
      guarded("room", undefined, () => this.#serve());
    });
  }

  #serve(): void {
    for (let claim = this.#line[0]; claim !== undefined; claim = this.#line[0]) {
      if (this.kept > 0 && claim.reuse()) this.#next();
      else if (this.#makeRoom()) {
        this.#next();
        this.#ours++;
        claim.granted();
      } else return;
    }
  }

  #next(): void {
    this.#line.shift();
    if (this.#seen > 0) this.#seen--;
  }

  /** Room for one more descriptor, if need be in the place of a connection that nobody uses. */
  #makeRoom(): boolean {
    if (this.open + this.#ours < this.max) return true;
    if (this.kept === 0) return false;
    let from: Keeper | undefined;
    for (const keeper of this.keepers) {
      if (keeper.oldest < (from?.oldest ?? Number.POSITIVE_INFINITY)) from = keeper;
    }
    from?.dropOldest();
    return this.open + this.#ours < this.max;
  }

  #wait(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      const tired = Math.min(this.#seen, Math.ceil(this.#line.length * REFUSED_SHARE));
      const refused = this.#line.splice(0, tired);
      this.#seen = this.#line.length;
      if (this.#seen > 0) this.#wait();
      this.#refused += tired;
      for (const claim of refused) guarded("room", undefined, () => claim.refused());
    }, PATIENCE_MS);
  }
}
