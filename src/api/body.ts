/** Bodies: JSON objects of bounded size and depth, every field named and typed by its route. */
import { refusal } from "./problem.ts";

export type Json = Readonly<Record<string, unknown>>;

/** Room for 4 MiB of documents inside JSON. */
const BODY_BYTES_MAX = 5 * 1024 * 1024;
/** Deeper than any request; bounds what parsers recurse into. */
const DEPTH_MAX = 64;
/** Room for an explanation, not for a book. */
const TEXT_MAX = 2000;

/** @throws Failure 400, 413 or 415. */
export async function readJson(request: Request, known: Json): Promise<Json> {
  const type = request.headers.get("content-type") ?? "";
  if (!/^application\/json\s*(;|$)/i.test(type)) {
    throw refusal(
      415,
      "content_type",
      type === "" ? "the body has no content type" : `${type} is not read here`,
      "send JSON with content-type: application/json",
    );
  }
  if (Number(request.headers.get("content-length") ?? 0) > BODY_BYTES_MAX) throw tooLarge();
  const bytes = await request.bytes();
  if (bytes.length > BODY_BYTES_MAX) throw tooLarge();
  const body = parse(textIn(bytes));
  checkFields(body, known);
  return body;
}

function tooLarge() {
  return refusal(413, "too_large", "the body is larger than 5 MiB", "send less at once");
}

/** What is not UTF-8 must not be stored as something that looks like it. */
function textIn(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw refusal(400, "invalid_utf8", "the body is not UTF-8", "save and send it as UTF-8");
  }
}

function parse(text: string): Json {
  if (nesting(text) > DEPTH_MAX) {
    const message = `the body nests deeper than ${DEPTH_MAX} levels`;
    throw refusal(400, "too_deep", message, "send flatter JSON");
  }
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw refusal(400, "invalid_json", `the body is not JSON: ${why}`, "send one JSON object");
  }
  if (isJson(body)) return body;
  throw refusal(400, "invalid_json", "the body is not a JSON object", "send one JSON object");
}

/** Deepest nesting of brackets outside strings. */
function nesting(text: string): number {
  let depth = 0;
  let deepest = 0;
  let quoted = false;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (quoted) {
      if (code === 0x5c) at++;
      else if (code === 0x22) quoted = false;
    } else if (code === 0x22) quoted = true;
    else if (code === 0x7b || code === 0x5b) deepest = Math.max(deepest, ++depth);
    else if (code === 0x7d || code === 0x5d) depth--;
  }
  return deepest;
}

export function isJson(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function checkFields(body: Json, known: Json): void {
  for (const name of Object.keys(body)) {
    if (Object.hasOwn(known, name)) continue;
    const fix = `fields here are ${Object.keys(known).join(", ")}`;
    throw refusal(400, "unknown_field", `there is no field ${JSON.stringify(name)} here`, fix);
  }
  for (const [name, shape] of Object.entries(known)) {
    const [type = "", optional] = String(shape).split("?");
    const value = body[name];
    if (value === undefined) {
      if (optional !== undefined) continue;
      throw refusal(400, "missing_field", `${name} is required`, `add ${name}: ${type}`);
    }
    if (fits(value, type)) continue;
    throw refusal(400, "wrong_type", `${name} must be ${type}`, `write ${name} as ${type}`);
  }
}

function fits(value: unknown, type: string): boolean {
  switch (type) {
    case "string":
      return typeof value === "string";
    case "boolean":
      return typeof value === "boolean";
    case "integer":
      return Number.isSafeInteger(value);
    case "strings":
      return Array.isArray(value) && value.every((item) => typeof item === "string");
    case "objects":
      return Array.isArray(value) && value.every(isJson);
    default:
      return false;
  }
}

/** Readers of fields that `readJson` has checked. */
export function textOf(body: Json, name: string): string | undefined {
  const value = body[name];
  return typeof value === "string" ? value : undefined;
}

export function requiredText(body: Json, name: string): string {
  const value = textOf(body, name);
  if (value !== undefined) return value;
  throw refusal(400, "missing_field", `${name} is required`, `add ${name}: string`);
}

/** A remark that is kept for ever. @throws Failure 400. */
export function shortText(body: Json, name: string): string | undefined {
  const value = textOf(body, name);
  if (value === undefined || value.length <= TEXT_MAX) return value;
  const message = `${name} is ${value.length} characters long`;
  throw refusal(400, "invalid_value", message, `write at most ${TEXT_MAX} characters`);
}

export function flagOf(body: Json, name: string): boolean {
  return body[name] === true;
}

export function integerOf(body: Json, name: string): number | undefined {
  const value = body[name];
  return typeof value === "number" ? value : undefined;
}

export function textsOf(body: Json, name: string): readonly string[] | undefined {
  const value = body[name];
  return Array.isArray(value) ? value.filter((item) => typeof item === "string") : undefined;
}

/** A list of objects, each reduced to the given text fields. */
export function recordsOf<const Names extends readonly string[]>(
  body: Json,
  name: string,
  fields: Names,
): { readonly [Field in Names[number]]: string }[] {
  const value = body[name];
  const list: unknown[] = Array.isArray(value) ? value : [];
  return list.map((item, index) => {
    const found: Record<string, string> = {};
    for (const field of fields) {
      const text = isJson(item) ? item[field] : undefined;
      if (typeof text !== "string") {
        const where = `${name}[${index}].${field}`;
        throw refusal(400, "wrong_type", `${where} must be a string`, `write ${where} as text`);
      }
      found[field] = text;
    }
    return found as { readonly [Field in Names[number]]: string };
  });
}
