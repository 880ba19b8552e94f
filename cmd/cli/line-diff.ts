/** The difference of two texts, line by line, as `diff -u` marks it. */

export interface DiffLine {
  readonly mark: " " | "+" | "-";
  readonly text: string;
}

/** Beyond this many cells the middle is shown as replaced wholly; documents are smaller. */
const CELLS_MAX = 4_000_000;

/** A shortest edit script by longest common subsequence. */
export function lineDiff(before: string, after: string): readonly DiffLine[] {
  const a = linesOf(before);
  const b = linesOf(after);
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  let tail = 0;
  const room = Math.min(a.length, b.length) - head;
  while (tail < room && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
  const middle = script(a.slice(head, a.length - tail), b.slice(head, b.length - tail));
  const same = (text: string): DiffLine => ({ mark: " ", text });
  return [...a.slice(0, head).map(same), ...middle, ...a.slice(a.length - tail).map(same)];
}

function linesOf(text: string): readonly string[] {
  if (text === "") return [];
  return (text.endsWith("\n") ? text.slice(0, -1) : text).split("\n");
}

function script(a: readonly string[], b: readonly string[]): readonly DiffLine[] {
  const removed = a.map((text): DiffLine => ({ mark: "-", text }));
  const added = b.map((text): DiffLine => ({ mark: "+", text }));
  if (a.length * b.length > CELLS_MAX) return [...removed, ...added];
  const width = b.length + 1;
  const common = new Uint32Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      common[i * width + j] =
        a[i] === b[j]
          ? common[(i + 1) * width + j + 1]! + 1
          : Math.max(common[(i + 1) * width + j]!, common[i * width + j + 1]!);
    }
  }
  const lines: DiffLine[] = [];
  let i = 0;
  let j = 0;
  while (i < a.length && j < b.length) {
    if (a[i] === b[j]) {
      lines.push({ mark: " ", text: a[i]! });
      i++;
      j++;
    } else if (common[(i + 1) * width + j]! >= common[i * width + j + 1]!)
      lines.push(removed[i++]!);
    else lines.push(added[j++]!);
  }
  return [...lines, ...removed.slice(i), ...added.slice(j)];
}

/** What lies between two states of one document, shortened for people. */
export function documentDiff(before: string, after: string): readonly DiffLine[] {
  if (before !== after) return excerpted(lineDiff(before, after));
  return [{ mark: " ", text: "same text; from a registration on one side, applied on the other" }];
}

/** Keeps `around` equal lines beside each change; a gap is one `…` line. */
export function excerpted(lines: readonly DiffLine[], around = 3): readonly DiffLine[] {
  const kept = lines.map((_, i) =>
    lines.slice(Math.max(0, i - around), i + around + 1).some((line) => line.mark !== " "),
  );
  const shown: DiffLine[] = [];
  lines.forEach((line, i) => {
    if (kept[i]) shown.push(line);
    else if (i === 0 || kept[i - 1]) shown.push({ mark: " ", text: "…" });
  });
  return shown;
}
