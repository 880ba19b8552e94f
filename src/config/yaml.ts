/**
 * YAML and JSON texts to plain values that remember their places. Input is hostile: size, depth
 * and alias expansion are bounded, and nothing that YAML would drop or merge silently gets by.
 */
import {
  type Document,
  isAlias,
  isMap,
  isNode,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  type Pair,
  parseAllDocuments,
  type YAMLError,
  type YAMLMap,
} from "yaml";
import type { Path, Position } from "./resource.ts";

/** Plain objects have no prototype, so no key can reach one. */
export type Plain =
  | null
  | boolean
  | number
  | string
  | readonly Plain[]
  | { readonly [key: string]: Plain };

export interface TextIssue extends Position {
  readonly path: Path;
  readonly value: string;
  readonly code: string;
  readonly reason: string;
  readonly fix: string;
}

/** One document of a text: its value, or what is wrong with it. */
export interface TextDocument {
  readonly value: Plain;
  readonly issues: readonly TextIssue[];
  /** Where the value at a path stands, or the nearest thing above it that exists. */
  at(path: Path): Position;
  /** Where the last key of a path stands. */
  atKey(path: Path): Position;
  /** The value at a path as written; undefined for maps and lists. */
  written(path: Path): string | undefined;
}

/** Deeper than any document needs; keeps recursion of every later step bounded. */
const DEPTH_MAX = 32;
/** Values one document may have after its aliases are expanded. */
const VALUES_MAX = 200_000;
/** Values that aliases may add: repeating a block is fine, multiplying it is not. */
const ALIASED_MAX = 2_000;
/** Of one document; a stray bracket can be there a million times. */
const ISSUES_MAX = 200;
/** Keys that valibot and JavaScript treat in their own way. */
const FORBIDDEN = new Set(["__proto__", "constructor", "prototype"]);

export function parseText(text: string): TextDocument[] {
  const lines = new LineCounter();
  const tooDeep = nestedTooDeep(text);
  if (tooDeep !== undefined) return [brokenText(lineOf(text, tooDeep))];
  const parsed = parseDocuments(text, lines);
  if (parsed === undefined) return [brokenText({ line: 1, column: 1 })];
  return parsed.flatMap((document) => {
    const made = fromDocument(document, lines);
    return made === undefined ? [] : [made];
  });
}

/** Undefined when the text nests so deeply that the library runs out of stack. */
function parseDocuments(text: string, lineCounter: LineCounter): Document.Parsed[] | undefined {
  const options = {
    version: "1.2",
    schema: "core",
    merge: false,
    // Checked below: the library compares every key with every other.
    uniqueKeys: false,
    strict: true,
    prettyErrors: false,
    lineCounter,
  } as const;
  try {
    const parsed = parseAllDocuments(text, options);
    return Array.isArray(parsed) ? (parsed as Document.Parsed[]) : [];
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}

/**
 * The library recurses into flow collections and indentation, so depth is judged before it may
 * look. Brackets inside quotes and comments count too: 1,000 of them balance out in honest text.
 */
function nestedTooDeep(text: string): number | undefined {
  let depth = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === 0x5b || code === 0x7b) {
      depth += 1;
      if (depth > 1000) return at;
    } else if ((code === 0x5d || code === 0x7d) && depth > 0) depth -= 1;
  }
  const deepIndent = /^(?:- ){200}|^ {4000}/m.exec(text);
  return deepIndent?.index;
}

function lineOf(text: string, offset: number): Position {
  const before = text.slice(0, offset);
  const line = before.split("\n").length;
  return { line, column: offset - before.lastIndexOf("\n") };
}

function tooDeepAt(position: Position): TextIssue {
  const fix = `nest at most ${DEPTH_MAX} levels`;
  const reason = "values are nested too deeply";
  return { ...position, path: [], value: "", code: "too_deep", reason, fix };
}

function brokenText(position: Position): TextDocument {
  const at = () => position;
  return { value: null, issues: [tooDeepAt(position)], at, atKey: at, written: () => undefined };
}

function fromDocument(document: Document.Parsed, lines: LineCounter): TextDocument | undefined {
  const place = (node: unknown): Position => {
    const offset = isNode(node) ? (node.range?.[0] ?? 0) : 0;
    const { line, col } = lines.linePos(offset);
    return { line: Math.max(line, 1), column: Math.max(col, 1) };
  };
  const syntax = [...document.errors.slice(0, ISSUES_MAX), ...document.warnings]
    .slice(0, ISSUES_MAX)
    .map((error) => syntaxIssue(error, lines));
  const root: unknown = document.contents;
  const empty = root === null || (isScalar(root) && root.value === null && !root.source);
  if (syntax.length === 0 && empty) return undefined;
  const builder = new PlainBuilder(document, place);
  const value = syntax.length === 0 ? builder.build(document.contents) : null;
  const find = (path: Path) => findNode(document, path);
  return {
    value,
    issues: [...syntax, ...builder.issues],
    at: (path) => place(find(path).node),
    atKey: (path) => {
      const found = find(path);
      return place(found.key ?? found.node);
    },
    written: (path) => {
      const { node, whole } = find(path);
      return whole && isScalar(node) ? (node.source ?? undefined) : undefined;
    },
  };
}

const SYNTAX_FIX: Readonly<Record<string, string>> = {
  TAB_AS_INDENT: "indent with spaces instead of tabs",
  BAD_INDENT: "check the indentation of this line",
  MISSING_CHAR: "check for a missing space, comma, bracket, colon or quote",
  MULTILINE_IMPLICIT_KEY: "check for a missing colon or quote in the lines before",
  BLOCK_AS_IMPLICIT_KEY: "put the nested value on a line of its own, indented, or quote the text",
  UNEXPECTED_TOKEN: "check for a stray bracket, comma or quote, and quote text with : or #",
  TAG_RESOLVE_FAILED: "remove the tag; values need none",
  BAD_ALIAS: "define the anchor (&name) before using it (*name)",
};

function syntaxIssue(error: YAMLError, lines: LineCounter): TextIssue {
  const { line, col } = lines.linePos(error.pos[0]);
  if (error.message.includes("call stack")) return tooDeepAt({ line, column: col });
  const reason = (error.message.split("\n")[0] ?? "").replace(/\p{C}/gu, "?");
  return {
    line: Math.max(line, 1),
    column: Math.max(col, 1),
    path: [],
    value: "",
    code: "malformed_yaml",
    reason: `malformed YAML: ${reason.slice(0, 200)}`,
    fix: SYNTAX_FIX[error.code] ?? "check indentation, quotes and brackets around this place",
  };
}

type Placed = (node: unknown) => Position;

/** Walks the nodes of one document; lives for one `build`. */
class PlainBuilder {
  readonly issues: TextIssue[] = [];
  readonly #document: Document.Parsed;
  readonly #place: Placed;
  #values = 0;
  #aliased = 0;
  #insideAlias = 0;
  #stopped = false;

  constructor(document: Document.Parsed, place: Placed) {
    this.#document = document;
    this.#place = place;
  }

  build(node: Node | null): Plain {
    return this.#plain(node, []);
  }

  #report(node: unknown, path: Path, code: string, value: string, reason: string, fix: string) {
    this.issues.push({ ...this.#place(node), path, code, value, reason, fix });
  }

  /** Reports once and ends the walk: what follows would only repeat it. */
  #stop(node: unknown, path: Path, code: string, reason: string, fix: string): null {
    if (!this.#stopped) this.#report(node, path, code, "", reason, fix);
    this.#stopped = true;
    return null;
  }

  #plain(node: unknown, path: Path): Plain {
    if (this.#stopped) return null;
    this.#values += 1;
    if (this.#insideAlias > 0) this.#aliased += 1;
    if (this.#aliased > ALIASED_MAX) {
      const fix = "write the values out, or use fewer aliases";
      return this.#stop(node, path, "alias_bomb", "aliases expand to too many values", fix);
    }
    if (this.#values > VALUES_MAX) {
      return this.#stop(node, path, "too_large", "the document has too many values", "split it");
    }
    if (path.length > DEPTH_MAX) {
      const fix = `nest at most ${DEPTH_MAX} levels`;
      return this.#stop(node, path, "too_deep", "values are nested too deeply", fix);
    }
    if (isAlias(node)) return this.#alias(node, path);
    if (isMap(node)) return this.#map(node, path);
    if (isSeq(node)) return node.items.map((item, i) => this.#plain(item, [...path, i]));
    return isScalar(node) ? this.#scalar(node.value, node, path) : null;
  }

  #alias(node: Parameters<typeof isAlias>[0] & { source: string }, path: Path): Plain {
    const target = isAlias(node) ? node.resolve(this.#document) : undefined;
    if (target === undefined) {
      const fix = "define the anchor (&name) before using it (*name)";
      return this.#stop(node, path, "malformed_yaml", `no anchor &${node.source}`, fix);
    }
    this.#insideAlias += 1;
    const value = this.#plain(target, path);
    this.#insideAlias -= 1;
    return value;
  }

  #scalar(value: unknown, node: Node, path: Path): Plain {
    switch (typeof value) {
      case "string":
      case "boolean":
        return value;
      case "number":
        return value;
      default:
        if (value === null || value === undefined) return null;
        this.#report(node, path, "wrong_type", String(value), "is no plain value", "quote it");
        return null;
    }
  }

  #map(map: YAMLMap, path: Path): Plain {
    const made: Record<string, Plain> = Object.create(null);
    for (const pair of map.items) {
      const key = this.#key(pair, path);
      if (key === undefined) continue;
      const below = [...path, key];
      if (Object.hasOwn(made, key)) {
        const fix = "keep one of the two";
        this.#report(pair.key, below, "duplicate_key", key, "this key is given twice", fix);
        continue;
      }
      made[key] = this.#plain(pair.value, below);
    }
    return made;
  }

  #key(pair: Pair, path: Path): string | undefined {
    const node = isAlias(pair.key) ? pair.key.resolve(this.#document) : pair.key;
    if (!isScalar(node) || node.value === null) {
      const fix = "write `name: value`, and quote names with special characters";
      this.#report(pair.key, path, "malformed_yaml", "", "a key must be plain text", fix);
      return undefined;
    }
    const key = typeof node.value === "string" ? node.value : (node.source ?? String(node.value));
    if (key === "<<") {
      const fix = "write the fields out";
      this.#report(node, [...path, key], "merge_key", key, "merge keys are not supported", fix);
      return undefined;
    }
    if (FORBIDDEN.has(key)) {
      this.#report(node, [...path, key], "forbidden_key", key, "is not allowed", "rename the key");
      return undefined;
    }
    return key;
  }
}

interface Found {
  readonly node: unknown;
  readonly key: unknown;
  /** The whole path exists. */
  readonly whole: boolean;
}

function findNode(document: Document.Parsed, path: Path): Found {
  const open = (node: unknown) => (isAlias(node) ? node.resolve(document) : node);
  let node: unknown = document.contents;
  let key: unknown;
  for (const part of path) {
    const here = open(node);
    if (isMap(here)) {
      const pair = here.items.find((item) => keyText(open(item.key)) === part);
      if (pair === undefined) return { node, key, whole: false };
      key = pair.key;
      node = isNode(pair.value) ? pair.value : pair.key;
    } else if (isSeq(here) && typeof part === "number" && part < here.items.length) {
      node = here.items[part];
      key = undefined;
    } else return { node, key, whole: false };
  }
  return { node: open(node), key, whole: true };
}

function keyText(key: unknown): string | undefined {
  if (!isScalar(key)) return undefined;
  return typeof key.value === "string" ? key.value : (key.source ?? String(key.value));
}
