/**
 * Smooth weighted round robin (the nginx algorithm). The step is a function over counters that the
 * caller keeps, so a split stays exact while snapshots come and go: any `sum(weights)` consecutive
 * picks contain each choice exactly as often as its weight says.
 */

/** Weights with their greatest common divisor taken out: shortens the period of the split. */
export function reduceWeights(weights: readonly number[]): number[] {
  let divisor = 0;
  for (const weight of weights) divisor = gcd(divisor, weight);
  return divisor <= 1 ? [...weights] : weights.map((weight) => weight / divisor);
}

function gcd(a: number, b: number): number {
  return b === 0 ? a : gcd(b, a % b);
}

/** Fresh counters for a split of `weights`. */
export function splitCounters(weights: readonly number[]): number[] {
  return weights.map(() => 0);
}

/**
 * The next choice, or -1 when all weights are 0. Advances `counters`, which belong to exactly
 * these weights.
 */
export function stepSplit(weights: readonly number[], counters: number[]): number {
  let best = -1;
  let total = 0;
  for (let i = 0; i < weights.length; i++) {
    const weight = weights[i]!;
    if (weight === 0) continue;
    total += weight;
    const count = counters[i]! + weight;
    counters[i] = count;
    if (best === -1 || count > counters[best]!) best = i;
  }
  if (best !== -1) counters[best] = counters[best]! - total;
  return best;
}
