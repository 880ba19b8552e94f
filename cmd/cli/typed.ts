/** Options of verbs as typed, read into values. */
import { readDuration, usage } from "../grammar.ts";
import type { Typed } from "./session.ts";

export function typedText(typed: Typed, key: string): string | undefined {
  const value = typed[key];
  return typeof value === "string" ? value : undefined;
}

export function typedTexts(typed: Typed, key: string): readonly string[] {
  const value = typed[key];
  return Array.isArray(value) ? value.map(String) : [];
}

export function typedToggle(typed: Typed, key: string): boolean {
  return typed[key] === true;
}

export function typedDuration(typed: Typed, key: string, fallbackMs: number): number {
  const value = typedText(typed, key);
  return value === undefined ? fallbackMs : readDuration(value, `--${key}`);
}

/** `--wait` is 1, `--wait=95%` is 0.95, absent is undefined. */
export function typedShare(typed: Typed): number | undefined {
  const value = typed["wait"];
  if (value === undefined) return undefined;
  if (value === true) return 1;
  const match = /^(\d{1,3})%$/.exec(String(value));
  const percent = match === null ? 0 : Number(match[1]);
  if (percent < 1 || percent > 100) {
    throw usage(`--wait: "${value}" is not a share`, "for example --wait=95%");
  }
  return percent / 100;
}

export type Format = "table" | "wide" | "json" | "yaml" | "name";

/** `-o`, one of `formats`; the first is what holds without it. */
export function typedFormat<T extends string>(typed: Typed, formats: readonly T[]): T {
  const value = typedText(typed, "output");
  const found = value === undefined ? formats[0] : formats.find((format) => format === value);
  if (found !== undefined) return found;
  throw usage(`-o: "${value}" is not a format here`, `one of ${formats.join(", ")}`);
}

export const LIST_FORMATS: readonly Format[] = ["table", "wide", "json", "yaml", "name"];

/** A revision number, as a verb's argument. */
export function readRevision(text: string | undefined, verb: string): number {
  if (text !== undefined && /^[1-9]\d{0,8}$/.test(text)) return Number(text);
  throw usage(`${verb}: "${text ?? ""}" is not a revision`, "weft history lists them");
}
