/** Texts to resources. Everything wrong in all of them is reported at once, each with its place. */
import * as v from "valibot";
import { EXIT, Failure } from "../error.ts";
import { documentName, fields, label, labels, oneOf, told, untold } from "./fields.ts";
import { httpRouteSpec } from "./http-route.ts";
import { checkRoute } from "./http-route-rules.ts";
import {
  meshSpec,
  peerAuthSpec,
  processSpec,
  serviceSpec,
  trafficPolicySpec,
  workloadSpec,
} from "./kinds.ts";
import {
  API_VERSIONS,
  type Issue,
  type Kind,
  type ParsedResource,
  type Path,
  pathText,
  type Resource,
  resourceKey,
  type Source,
} from "./resource.ts";
import { closest } from "./suggest.ts";
import { type Plain, parseText, type TextDocument } from "./yaml.ts";

/** All texts of one change together. */
export const SOURCES_BYTES_MAX = 4 * 1024 * 1024;
/** Reading takes about 5 µs a word, and the process does nothing else meanwhile. */
const SOURCES_WORDS_MAX = 300_000;
/** One wrong template can spoil every document; nobody reads further than this. */
const ISSUES_MAX = 200;

export interface Parsed {
  readonly resources: ParsedResource[];
  readonly issues: Issue[];
}

const SPECS: Readonly<Record<Kind, v.GenericSchema>> = {
  Mesh: meshSpec,
  Service: serviceSpec,
  Workload: workloadSpec,
  TrafficPolicy: trafficPolicySpec,
  PeerAuth: peerAuthSpec,
  HTTPRoute: httpRouteSpec,
  Process: processSpec,
};

const KINDS = Object.keys(SPECS) as readonly Kind[];

/**
 * Reads every document of every source. A document with an issue yields no resource.
 * @throws Failure `too_large` (413) when the texts together exceed 4 MiB or 300,000 words.
 */
export function parseSources(sources: readonly Source[]): Parsed {
  let bytes = 0;
  for (const source of sources) bytes += Buffer.byteLength(source.text);
  if (bytes > SOURCES_BYTES_MAX) {
    throw new Failure(
      "too_large",
      `The documents are ${bytes} bytes together; at most 4 MiB go into one change`,
      "apply them in several steps",
      { exit: EXIT.refused, status: 413 },
    );
  }
  let words = 0;
  for (const source of sources) words += wordsIn(source.text);
  if (words > SOURCES_WORDS_MAX) {
    throw new Failure(
      "too_large",
      `The documents have ${words} words together; at most ${SOURCES_WORDS_MAX} go into one change`,
      "apply them in several steps",
      { exit: EXIT.refused, status: 413 },
    );
  }
  const resources: ParsedResource[] = [];
  const issues: Issue[] = [];
  const seen = new Map<string, string>();
  for (const source of sources) {
    for (const document of parseText(source.text)) {
      const found = readDocument(source.name, document);
      if (issues.length < ISSUES_MAX) issues.push(...found.issues.slice(0, ISSUES_MAX));
      if (found.parsed === undefined) continue;
      const twice = duplicateOf(found.parsed, seen);
      if (twice === undefined) resources.push(found.parsed);
      else issues.push(twice);
    }
  }
  return { resources, issues: issues.slice(0, ISSUES_MAX) };
}

/** Pieces between spaces, line ends, commas and brackets: what reading costs time for. */
function wordsIn(text: string): number {
  let words = 0;
  let inside = false;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    const separates = code <= 0x20 && code !== 0x0a;
    const counts = code === 0x0a || BREAKS.has(code);
    if (counts || (!separates && !inside)) words += 1;
    inside = !separates && !counts;
  }
  return words;
}

/** Comma, quotes, and the brackets of flow collections. */
const BREAKS = new Set([0x2c, 0x22, 0x27, 0x5b, 0x5d, 0x7b, 0x7d]);

function duplicateOf(parsed: ParsedResource, seen: Map<string, string>): Issue | undefined {
  const key = resourceKey(parsed.resource);
  const position = parsed.at(["metadata", "name"]);
  const first = seen.get(key);
  if (first === undefined) {
    seen.set(key, `${parsed.source}:${position.line}`);
    return undefined;
  }
  return {
    source: parsed.source,
    ...position,
    path: "metadata.name",
    value: parsed.resource.metadata.name,
    reason: `${key} is already given at ${first}`,
    fix: "keep one of the two, or give one another name",
    code: "duplicate_document",
  };
}

interface Read {
  readonly parsed?: ParsedResource;
  readonly issues: readonly Issue[];
}

function readDocument(source: string, document: TextDocument): Read {
  if (document.issues.length > 0) {
    return {
      issues: document.issues.map((issue) => ({
        source,
        line: issue.line,
        column: issue.column,
        path: pathText(issue.path),
        value: shown(issue.value),
        reason: issue.reason,
        fix: issue.fix,
        code: issue.code,
      })),
    };
  }
  const report: Report = (path, code, reason, fix, key = false) => ({
    source,
    ...(key ? document.atKey(path) : document.at(path)),
    path: pathText(path),
    value: shown(document.written(path) ?? valueAt(document.value, path)),
    reason,
    fix,
    code,
  });
  const kind = kindOf(document.value, report);
  if (typeof kind !== "string") return { issues: [kind] };
  const value = structuredClone(document.value) as Record<string, unknown>;
  // What `get` printed may be applied again; a status is never taken from outside.
  delete value["status"];
  const schema = documentSchema(kind);
  const { output, issues } = check(schema, value, document, report);
  if (issues.length > 0 || output === undefined) return { issues };
  const resource = output as Resource;
  if (resource.kind === "HTTPRoute") {
    const wrong = checkRoute(resource).map(({ path, code, reason, fix }) =>
      report(path, code, reason, fix),
    );
    if (wrong.length > 0) return { issues: wrong };
  }
  return { parsed: { resource, source, at: (path) => document.at(path) }, issues: [] };
}

type Report = (path: Path, code: string, reason: string, fix: string, key?: boolean) => Issue;

/** The kind a document claims, when weft has it under the apiVersion the document names. */
function kindOf(value: Plain, report: Report): Kind | Issue {
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    const fix = "start it with apiVersion, kind and metadata";
    return report([], "wrong_type", "a document must be a map of fields", fix);
  }
  const { apiVersion, kind } = value as Record<string, Plain>;
  const list = KINDS.join(", ");
  if (kind === undefined || kind === null) {
    return report([], "missing_field", "kind is required", `add kind: one of ${list}`);
  }
  const known = KINDS.find((candidate) => candidate === kind);
  if (known === undefined) {
    const guess = typeof kind === "string" ? closest(kind, KINDS) : undefined;
    const fix = guess === undefined ? `use one of ${list}` : `did you mean ${guess}?`;
    return report(["kind"], "unknown_kind", `weft has no such kind; it has ${list}`, fix);
  }
  const wanted = API_VERSIONS[known];
  if (apiVersion === wanted) return known;
  if (apiVersion === undefined || apiVersion === null) {
    return report([], "missing_field", "apiVersion is required", `add apiVersion: ${wanted}`);
  }
  const reason = `${known} belongs to apiVersion ${wanted}`;
  return report(["apiVersion"], "unknown_version", reason, `write apiVersion: ${wanted}`);
}

const SCHEMAS = new Map<Kind, v.GenericSchema>();

function documentSchema(kind: Kind): v.GenericSchema {
  const known = SCHEMAS.get(kind);
  if (known !== undefined) return known;
  const dialled = kind === "Service" || kind === "Process";
  const name =
    kind === "Mesh"
      ? v.literal("mesh", told("invalid_name", "there is one Mesh", "name it mesh"))
      : dialled
        ? label
        : documentName;
  const metadata =
    kind === "Mesh"
      ? v.pipe(
          fields({ name, labels: v.exactOptional(labels, {}) }),
          v.transform((given) => ({ ...given, namespace: "" })),
        )
      : fields({
          name,
          namespace: v.exactOptional(label, "default"),
          labels: v.exactOptional(labels, {}),
        });
  const schema = fields({
    apiVersion: v.string(),
    kind: oneOf(KINDS as readonly [Kind, ...Kind[]]),
    metadata,
    spec: kind === "Mesh" ? v.exactOptional(SPECS[kind], {}) : SPECS[kind],
  });
  SCHEMAS.set(kind, schema);
  return schema;
}

/** Runs a schema until it names no further unknown field: it reports one per map at a time. */
function check(
  schema: v.GenericSchema,
  value: Record<string, unknown>,
  document: TextDocument,
  report: Report,
): { readonly output: unknown; readonly issues: Issue[] } {
  const unknown: Issue[] = [];
  for (;;) {
    const result = v.safeParse(schema, value);
    if (result.success) return { output: result.output, issues: unknown };
    const extra = result.issues.filter((issue) => issue.expected === "never" && !ofList(issue));
    if (extra.length > 0 && unknown.length < ISSUES_MAX) {
      for (const issue of extra) {
        unknown.push(issueOf(issue, document, report));
        removeAt(value, pathOf(issue));
      }
      continue;
    }
    const rest = result.issues.map((issue) => issueOf(issue, document, report));
    const lists = new Set<string>();
    const once = rest.filter(({ path, code }) => {
      const name = `${path} ${code}`;
      return !lists.has(name) && lists.add(name);
    });
    return { output: undefined, issues: [...unknown, ...once] };
  }
}

/** The library takes a list for an object with wrong keys. */
function ofList(issue: v.BaseIssue<unknown>): boolean {
  return issue.type === "strict_object" && Array.isArray(issue.path?.at(-1)?.input);
}

function pathOf(issue: v.BaseIssue<unknown>): Path {
  return (issue.path ?? []).map(({ key }) => (typeof key === "number" ? key : String(key)));
}

function removeAt(root: Record<string, unknown>, path: Path): void {
  let at: unknown = root;
  for (const part of path.slice(0, -1)) at = (at as Record<string | number, unknown>)[part];
  delete (at as Record<string | number, unknown>)[path.at(-1) as string];
}

function issueOf(issue: v.BaseIssue<unknown>, document: TextDocument, report: Report): Issue {
  const path = pathOf(issue);
  if (ofList(issue)) {
    const fix = "write it as `field: value` lines";
    return report(path.slice(0, -1), "wrong_type", "must be a map of fields, not a list", fix);
  }
  const onKey =
    issue.expected === "never" || issue.path?.at(-1)?.origin === "key" || issue.type === "record";
  if (issue.input === null && issue.kind === "schema") {
    return report(path, "empty_value", "has no value", "give it a value or remove the line", onKey);
  }
  const said = untold(issue.message);
  const mistyped = issue.kind === "schema" && typeMismatch(issue, path, document);
  const missing = issue.input === undefined && issue.kind === "schema";
  if (missing && said?.code !== "missing_field") {
    const name = String(path.at(-1) ?? "it");
    return report(path, "missing_field", `${name} is required`, `add ${name}`);
  }
  if (missing && said !== undefined) return report(path, said.code, said.reason, said.fix);
  if (mistyped) return report(path, "wrong_type", mistyped.reason, mistyped.fix);
  if (said !== undefined) {
    const at = said.code === "unknown_field" || onKey;
    return report(path, said.code, said.reason, said.fix, at);
  }
  const expected = issue.expected ?? "something else";
  return report(path, "invalid_value", `must be ${expected}`, `write ${expected}`);
}

const TYPES: Readonly<Record<string, string>> = {
  string: "text",
  number: "a number",
  Array: "a list",
  Object: "a map of fields",
};

/** What to say when YAML understood a value as another type than the one that belongs there. */
function typeMismatch(issue: v.BaseIssue<unknown>, path: Path, document: TextDocument) {
  const { input } = issue;
  const wanted = issue.type === "picklist" || issue.type === "literal" ? "string" : issue.expected;
  const type = TYPES[wanted ?? ""];
  if (type === undefined || input === undefined) return undefined;
  const written = document.written(path);
  const got =
    typeof input === "object" ? (Array.isArray(input) ? "a list" : "a map") : typeNameOf(input);
  if (wanted === "string") {
    if (typeof input === "string") return undefined;
    const fix = written === undefined ? "write plain text" : `quote it: "${shown(written)}"`;
    // Numbers may be what a picklist of numbers asks for; its own message says so.
    if (typeof input === "number" && issue.type === "picklist") return undefined;
    return { reason: `must be text, but YAML reads it as ${got}`, fix };
  }
  if (wanted === "number" && typeof input === "string") {
    const numeric = /^\d+$/.test(input);
    const fix = numeric ? `remove the quotes: ${input}` : "write a number";
    return { reason: "must be a number, not text", fix };
  }
  const fix = type === "a list" ? "write it as `- item` lines or [item, item]" : `write ${type}`;
  return { reason: `must be ${type}, not ${got}`, fix };
}

function typeNameOf(input: unknown): string {
  return typeof input === "string" ? "text" : `a ${typeof input}`;
}

function valueAt(value: Plain, path: Path): string {
  let at: unknown = value;
  for (const part of path) {
    if (at === null || typeof at !== "object") return "";
    at = (at as Record<string | number, unknown>)[part];
  }
  if (at === undefined || at === null) return "";
  return typeof at === "object" ? JSON.stringify(at) : String(at);
}

const SHOWN_MAX = 80;

/** One line, printable, not longer than a line needs. */
function shown(value: string): string {
  const flat = value.replace(/[\s\p{C}]+/gu, " ");
  return flat.length > SHOWN_MAX ? `${flat.slice(0, SHOWN_MAX - 1)}…` : flat;
}
