/** "Did you mean": the known word nearest to what was typed. */

/** Undefined when nothing is near enough to be a typing error. */
export function closest(typed: string, known: readonly string[]): string | undefined {
  const lower = typed.toLowerCase().slice(0, LENGTH_MAX);
  let best: string | undefined;
  let bestDistance = Math.max(1, Math.floor(lower.length / 3)) + 1;
  for (const word of known) {
    const distance = distanceOf(lower, word.toLowerCase(), bestDistance);
    if (distance < bestDistance) {
      best = word;
      bestDistance = distance;
    }
  }
  return best;
}

const LENGTH_MAX = 64;

/** Edit distance with neighbours swapped counted as one; `limit` when it is at least that. */
function distanceOf(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) >= limit) return limit;
  let before: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const cost = a[i - 1] === b[j - 1] ? 0 : 1;
      let value = Math.min(last[j]! + 1, row[j - 1]! + 1, last[j - 1]! + cost);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        value = Math.min(value, before[j - 2]! + 1);
      }
      row.push(value);
    }
    before = last;
    last = row;
  }
  return Math.min(last[b.length]!, limit);
}
