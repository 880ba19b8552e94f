/** What callers hold of a limited number of places: whoever holds many leaves some to others. */

/** A caller's identity, or its address where that is all there is to know. */
export interface Source {
  readonly name: string;
  held: number;
}

/** For each place that is left a source may hold so many: alone seven of eight. */
const HELD_PER_FREE = 7;

export class Shares {
  readonly #sources = new Map<string, Source>();

  /** Takes a place of `free`, and owes `give`. Undefined: too many are held by this source. */
  take(name: string, free: number): Source | undefined {
    const source = this.#sources.get(name) ?? { name, held: 0 };
    if (!this.allows(source, free)) return undefined;
    if (source.held++ === 0) this.#sources.set(name, source);
    return source;
  }

  allows(source: Source, free: number): boolean {
    return source.held < HELD_PER_FREE * free;
  }

  give(source: Source): void {
    if (--source.held === 0) this.#sources.delete(source.name);
  }
}
