/**
 * Counters and their Prometheus text form. A hot path resolves its slots once and then only adds;
 * names and labels are put together when somebody scrapes.
 */

/** One number of a family. */
export interface Slot {
  value: number;
}

export interface Sample {
  /** Appended to the family's name: "_bucket", "_sum", "_count" of a histogram; else "". */
  readonly suffix: string;
  /** Without braces: `a="b",c="d"`. */
  readonly labels: string;
  readonly value: number;
}

type Kind = "counter" | "gauge" | "histogram";

interface Family {
  readonly name: string;
  readonly help: string;
  readonly kind: Kind;
  readonly samples: () => Iterable<Sample>;
}

/** Series of one family beyond this share the slot whose labels are all "other". */
const SERIES_MAX = 4000;

/** A family of numbers, one for each combination of label values. */
export class Counters {
  readonly #names: readonly string[];
  readonly #slots = new Map<string, Slot>();

  constructor(names: readonly string[]) {
    this.#names = names;
  }

  /** The slot of these label values, in the order of the family's labels. Keep it. */
  slot(...values: readonly string[]): Slot {
    let labels = labelText(this.#names, values);
    let slot = this.#slots.get(labels);
    if (slot !== undefined) return slot;
    if (this.#slots.size >= SERIES_MAX) {
      labels = labelText(
        this.#names,
        this.#names.map(() => "other"),
      );
      slot = this.#slots.get(labels);
      if (slot !== undefined) return slot;
    }
    slot = { value: 0 };
    this.#slots.set(labels, slot);
    return slot;
  }

  *samples(): Iterable<Sample> {
    for (const [labels, slot] of this.#slots) yield { suffix: "", labels, value: slot.value };
  }
}

export class Metrics {
  readonly #families = new Map<string, Family>();

  /** A family that only rises; `name` ends in `_total`. */
  counters(name: string, help: string, labels: readonly string[]): Counters {
    return this.#numbers("counter", name, help, labels);
  }

  gauges(name: string, help: string, labels: readonly string[]): Counters {
    return this.#numbers("gauge", name, help, labels);
  }

  /** A family whose samples are asked for at each scrape. */
  observe(name: string, help: string, kind: Kind, samples: () => Iterable<Sample>): void {
    if (this.#families.has(name)) throw new Error(`metric ${name} exists already`);
    this.#families.set(name, { name, help, kind, samples });
  }

  #numbers(kind: Kind, name: string, help: string, labels: readonly string[]): Counters {
    const counters = new Counters(labels);
    this.observe(name, help, kind, () => counters.samples());
    return counters;
  }

  /** Text exposition format 0.0.4. */
  render(): string {
    let text = "";
    for (const family of this.#families.values()) {
      let lines = "";
      for (const { suffix, labels, value } of family.samples()) {
        const set = labels === "" ? "" : `{${labels}}`;
        lines += `${family.name}${suffix}${set} ${value}\n`;
      }
      if (lines === "") continue;
      text += `# HELP ${family.name} ${family.help}\n# TYPE ${family.name} ${family.kind}\n${lines}`;
    }
    return text;
  }
}

/** `a="b",c="d"`, values escaped. */
export function labelText(names: readonly string[], values: readonly string[]): string {
  let text = "";
  for (let i = 0; i < names.length; i++) {
    if (i > 0) text += ",";
    text += `${names[i]}="${escapeLabel(values[i] ?? "")}"`;
  }
  return text;
}

function escapeLabel(value: string): string {
  if (!/[\\"\n]/.test(value)) return value;
  return value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}
