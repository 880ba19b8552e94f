/**
 * Scalars that several kinds share. Each says in its own words what it wants: a message is a
 * `told` text of code, reason and fix, which `parse.ts` takes apart again.
 */
import * as v from "valibot";
import { closest } from "./suggest.ts";

const SEPARATOR = "\u0001";

/** Packs what an issue says into a valibot message. */
export function told(code: string, reason: string, fix: string): string {
  return `${code}${SEPARATOR}${reason}${SEPARATOR}${fix}`;
}

/** The opposite of `told`; undefined for a message of valibot's own. */
export function untold(message: string) {
  const [code, reason, fix] = message.split(SEPARATOR);
  if (code === undefined || reason === undefined || fix === undefined) return undefined;
  return { code, reason, fix };
}

/** An object that refuses unknown fields, with a guess at what was meant. */
export function fields<const Entries extends v.ObjectEntries>(entries: Entries) {
  const known = Object.keys(entries);
  return v.strictObject(entries, (issue) => {
    const key = String(issue.path?.at(-1)?.key ?? "");
    if (issue.expected === "never") {
      const guess = closest(key, known);
      const fix =
        guess === undefined
          ? `remove it; fields here are ${known.join(", ")}`
          : `did you mean ${guess}?`;
      return told("unknown_field", `there is no field ${key} here`, fix);
    }
    if (issue.expected?.startsWith('"')) {
      return told("missing_field", `${key} is required`, `add ${key}`);
    }
    return told("wrong_type", "expected a map of fields", "write it as `field: value` lines");
  });
}

/** A required string that `pattern` accepts. */
function worded(pattern: RegExp, code: string, reason: string, fix: string) {
  return v.pipe(v.string(), v.regex(pattern, told(code, reason, fix)));
}

/** One of a few words. `others`: words in upper case that deserve an answer of their own. */
export function oneOf<const Words extends readonly [string, ...string[]]>(
  words: Words,
  others?: ReadonlyMap<string, string>,
) {
  return v.picklist(words, (issue) => {
    const other = others?.get(String(issue.input).toUpperCase());
    if (other !== undefined) return other;
    const guess = typeof issue.input === "string" ? closest(issue.input, words) : undefined;
    const fix = guess === undefined ? `use ${words.join(", ")}` : `did you mean ${guess}?`;
    return told("invalid_value", `must be one of ${words.join(", ")}`, fix);
  });
}

/** A list of at most `max` items: limits of the Gateway API where it has one. */
export function list<Item extends v.GenericSchema>(item: Item, max: number) {
  return v.pipe(v.array(item), v.maxLength(max, tooMany(max)));
}

/** A list with at least one item and at most `max`. */
export function filled<Item extends v.GenericSchema>(item: Item, max: number, what: string) {
  const empty = told("invalid_value", "the list is empty", `add at least one ${what}`);
  return v.pipe(v.array(item), v.minLength(1, empty), v.maxLength(max, tooMany(max)));
}

function tooMany(max: number): string {
  return told("too_many", `the list has more than ${max} items`, "split it over several documents");
}

export function integer(min: number, max: number, what: string) {
  const text = told(
    "invalid_value",
    `must be a whole number from ${min} to ${max}`,
    `give ${what} between ${min} and ${max}`,
  );
  return v.pipe(v.number(), v.integer(text), v.minValue(min, text), v.maxValue(max, text));
}

export const DNS_LABEL = /^[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?$/;
const NAME_FIX =
  "use at most 63 lower-case letters, digits and dashes, with a letter or digit at both ends";

/** RFC 1123 label: services, namespaces, subsets. */
export const label = worded(DNS_LABEL, "invalid_name", "is not a valid name", NAME_FIX);

/** RFC 1123 subdomain: documents that nobody dials. */
export const documentName = v.pipe(
  v.string(),
  v.regex(
    /^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*$/,
    told("invalid_name", "is not a valid name", "use lower-case letters, digits, dashes and dots"),
  ),
  v.maxLength(253, told("invalid_name", "is longer than 253 characters", "shorten it")),
);

/** Offsets from the port base of the ports weft itself listens on, at the default base. */
export const RESERVED_PORTS: readonly number[] = [17001, 17006, 17010, 17020, 17053, 17222];

export const anyPort = integer(1, 65535, "a port");

/** A port that weft does not use itself. */
export const port = v.pipe(
  anyPort,
  v.check(
    (value) => !RESERVED_PORTS.includes(value),
    told(
      "reserved_port",
      "weft listens on this port itself",
      `choose a port other than ${RESERVED_PORTS.join(", ")}`,
    ),
  ),
);

export const PROTOCOLS = ["http", "http2", "grpc", "tcp", "tls"] as const;
export const protocol = oneOf(PROTOCOLS);

const LABEL_VALUE = /^(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$/;
const LABEL_KEY =
  /^(?:[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?\/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/;

/** Labels as Kubernetes has them. */
export const labels = v.pipe(
  v.record(
    worded(
      LABEL_KEY,
      "invalid_label",
      "is not a valid label name",
      "use [prefix/]name with letters, digits, '-', '_' and '.'",
    ),
    worded(
      LABEL_VALUE,
      "invalid_label",
      "is not a valid label value",
      "use at most 63 letters, digits, '-', '_' and '.'",
    ),
  ),
  v.maxEntries(64, tooMany(64)),
);

/** Labels that select something: an empty set would select everything by accident. */
export const selectingLabels = v.pipe(
  labels,
  v.check(
    (value) => Object.keys(value).length > 0,
    told("invalid_value", "selects nothing in particular", "add at least one label"),
  ),
);

/** GEP-2257: up to four of `h`, `m`, `s`, `ms`, each with at most five digits. */
const DURATION = /^(?:\d{1,5}(?:h|m|s|ms)){1,4}$/;

export const duration = worded(
  DURATION,
  "invalid_duration",
  "is not a duration",
  "write it like 500ms, 10s, 1m30s or 0s (no fractions, no days)",
);

const UNIT_MS = { h: 3_600_000, m: 60_000, s: 1000, ms: 1 } as const;

/** Milliseconds of a duration that `duration` accepted. */
export function durationMs(text: string): number {
  let sum = 0;
  for (const [, digits, unit] of text.matchAll(/(\d+)(ms|h|m|s)/g)) {
    sum += Number(digits) * UNIT_MS[unit as keyof typeof UNIT_MS];
  }
  return sum;
}

/** RFC 9110 section 5.6.2: a token. */
export const headerName = v.pipe(
  v.string(),
  v.regex(
    /^[A-Za-z0-9!#$%&'*+\-.^_`|~]{1,256}$/,
    told(
      "invalid_header",
      "is not a header name",
      "use letters, digits and dashes, without colon or spaces",
    ),
  ),
);

/** Names whose meaning belongs to the connection or to the mesh: no route may touch them. */
const UNTOUCHABLE = new Set([
  "connection",
  "content-length",
  "host",
  "keep-alive",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  "weft-reason",
]);

export const editableHeader = v.pipe(
  headerName,
  v.check(
    (name) => !UNTOUCHABLE.has(name.toLowerCase()),
    told(
      "invalid_header",
      "belongs to the connection and cannot be edited",
      "remove it; to change Host use a URLRewrite filter with hostname",
    ),
  ),
);

/** RFC 9110 section 5.5, without obs-text: visible ASCII, spaces and tabs inside. */
export const headerValue = v.pipe(
  v.string(),
  v.regex(
    /^(?:[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?$/,
    told(
      "invalid_header",
      "is not a header value",
      "use printable ASCII without line breaks or surrounding spaces",
    ),
  ),
  v.maxLength(4096, told("invalid_header", "is longer than 4096 characters", "shorten it")),
);

/** A host name without wildcard. */
export const hostname = v.pipe(
  v.string(),
  v.regex(
    /^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*$/,
    told("invalid_hostname", "is not a host name", "use lower-case letters, digits, - and ."),
  ),
  v.maxLength(253, told("invalid_hostname", "is longer than 253 characters", "shorten it")),
);

export const hostPattern = v.pipe(
  v.string(),
  v.regex(
    /^(?:\*\.)?[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*$/,
    told(
      "invalid_hostname",
      "is not a host name",
      "use lower-case letters, digits, - and ., with at most one leading '*.'",
    ),
  ),
  v.maxLength(253, told("invalid_hostname", "is longer than 253 characters", "shorten it")),
);

/** Identity of a peer: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`. */
export const spiffeId = worded(
  /^spiffe:\/\/[a-z0-9._-]{1,118}\/ns\/[a-z0-9-]{1,63}\/sa\/[a-z0-9-]{1,63}$/,
  "invalid_identity",
  "is not an identity of a mesh",
  "write it as spiffe://<trust domain>/ns/<namespace>/sa/<service account>",
);
