/** Reading answers of the API without trusting their shape. */

export type Json = Readonly<Record<string, unknown>>;

export function record(value: unknown): Json {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? { ...value } : {};
}

/** The records in `value[key]`, or in `value` itself if it is a list. */
export function records(value: unknown, key: string): readonly Json[] {
  const list = Array.isArray(value) ? value : record(value)[key];
  return Array.isArray(list) ? list.map(record) : [];
}

/** Text of a plain value; "" when it is absent. */
export function text(value: unknown, key: string): string {
  const found = record(value)[key];
  if (found === undefined || found === null) return "";
  return typeof found === "object" ? JSON.stringify(found) : String(found);
}

export function number(value: unknown, key: string): number | undefined {
  const found = record(value)[key];
  return typeof found === "number" ? found : undefined;
}
