/** Choosing among endpoints. Pure but for `random` and the counters the caller keeps. */

/** What balancing reads of an endpoint. */
export interface Candidate {
  /** Requests under way. */
  readonly active: number;
  readonly weight: number;
}

/**
 * Two random endpoints, the less busy of them for its weight: nearly as even as looking at all,
 * without the herd that runs to the single best.
 */
export function pickLeastRequest<C extends Candidate>(
  candidates: readonly C[],
  random: () => number,
): C | undefined {
  const count = candidates.length;
  if (count <= 1) return candidates[0];
  const first = Math.floor(random() * count);
  let second = Math.floor(random() * (count - 1));
  if (second >= first) second++;
  const a = candidates[first]!;
  const b = candidates[second]!;
  return (a.active + 1) * b.weight <= (b.active + 1) * a.weight ? a : b;
}

export function pickRandom<C extends Candidate>(
  candidates: readonly C[],
  random: () => number,
): C | undefined {
  let total = 0;
  for (let i = 0; i < candidates.length; i++) total += candidates[i]!.weight;
  let left = random() * total;
  for (let i = 0; i < candidates.length; i++) {
    left -= candidates[i]!.weight;
    if (left < 0) return candidates[i];
  }
  return candidates.at(-1);
}
