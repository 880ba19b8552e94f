/** HTTPRoute of `gateway.networking.k8s.io/v1`, as far as weft enforces it. */
import * as v from "valibot";
import {
  anyPort,
  documentName,
  duration,
  editableHeader,
  fields,
  filled,
  headerName,
  headerValue,
  hostname,
  hostPattern,
  integer,
  label,
  list,
  oneOf,
  told,
} from "./fields.ts";

const METHODS = [
  "GET",
  "HEAD",
  "POST",
  "PUT",
  "DELETE",
  "CONNECT",
  "OPTIONS",
  "TRACE",
  "PATCH",
] as const;

const NO_REGEX = told(
  "unsupported",
  "weft does not match by regular expression",
  "use Exact, or PathPrefix for paths",
);

/** `Exact`, the only way names and values are compared. */
const exactType = v.exactOptional(v.literal("Exact", NO_REGEX));

/** Paths with others are refused where they arrive. */
const wholeEscapes = v.check<string, string>(
  (value) => !/%(?![0-9a-fA-F]{2})|%00/.test(value),
  told("invalid_path", "has a % without two hexadecimal digits, or %00", "write a % as %25"),
);

const pathValue = v.pipe(
  v.string(),
  v.regex(
    /^\/[\x21-\x22\x24-\x3e\x40-\x7e]*$/,
    told("invalid_path", "is not a path", "start with / and leave out query, spaces and #"),
  ),
  v.check(
    (value) => !/\/\/|\/\.{1,2}(?:\/|$)|%2f/i.test(value),
    told(
      "invalid_path",
      "has parts that the Gateway API does not allow in a path",
      "remove //, /./, /../ and encoded slashes",
    ),
  ),
  wholeEscapes,
  v.maxLength(1024, told("invalid_path", "is longer than 1024 characters", "shorten it")),
);

const match = fields({
  path: v.exactOptional(
    fields({
      type: v.exactOptional(
        v.picklist(["Exact", "PathPrefix"], (issue) =>
          issue.input === "RegularExpression"
            ? NO_REGEX
            : told("invalid_value", "must be Exact or PathPrefix", "use Exact or PathPrefix"),
        ),
      ),
      value: v.exactOptional(pathValue),
    }),
  ),
  method: v.exactOptional(oneOf(METHODS)),
  headers: v.exactOptional(
    list(fields({ type: exactType, name: headerName, value: headerValue }), 16),
  ),
  queryParams: v.exactOptional(
    list(
      fields({
        type: exactType,
        name: v.pipe(
          v.string(),
          v.minLength(1, told("invalid_value", "is empty", "name a query parameter")),
          v.maxLength(256, told("invalid_value", "is longer than 256 characters", "shorten it")),
        ),
        value: v.pipe(
          v.string(),
          v.maxLength(1024, told("invalid_value", "is longer than 1024 characters", "shorten it")),
        ),
      }),
      16,
    ),
  ),
});

const headerValues = list(fields({ name: editableHeader, value: headerValue }), 16);
const headerModifier = fields({
  set: v.exactOptional(headerValues),
  add: v.exactOptional(headerValues),
  remove: v.exactOptional(list(editableHeader, 16)),
});

/** A path that ends up in a request line or a Location field. */
const replacement = v.pipe(
  v.string(),
  v.regex(
    /^(?:\/[\x21-\x22\x24-\x3e\x40-\x7e]*)?$/,
    told("invalid_path", "is not a path", "start with / and leave out query, spaces and #"),
  ),
  wholeEscapes,
  v.maxLength(1024, told("invalid_path", "is longer than 1024 characters", "shorten it")),
);

const pathModifier = v.variant(
  "type",
  [
    fields({ type: v.literal("ReplaceFullPath"), replaceFullPath: replacement }),
    fields({ type: v.literal("ReplacePrefixMatch"), replacePrefixMatch: replacement }),
  ],
  told(
    "invalid_value",
    "must be ReplaceFullPath or ReplacePrefixMatch",
    "use ReplaceFullPath or ReplacePrefixMatch",
  ),
);

const requestHeaders = fields({
  type: v.literal("RequestHeaderModifier"),
  requestHeaderModifier: headerModifier,
});
const responseHeaders = fields({
  type: v.literal("ResponseHeaderModifier"),
  responseHeaderModifier: headerModifier,
});
const urlRewrite = fields({
  type: v.literal("URLRewrite"),
  urlRewrite: fields({
    hostname: v.exactOptional(hostname),
    path: v.exactOptional(pathModifier),
  }),
});
const requestRedirect = fields({
  type: v.literal("RequestRedirect"),
  requestRedirect: fields({
    scheme: v.exactOptional(oneOf(["http", "https"])),
    hostname: v.exactOptional(hostname),
    path: v.exactOptional(pathModifier),
    port: v.exactOptional(anyPort),
    statusCode: v.exactOptional(
      v.picklist(
        [301, 302, 303, 307, 308],
        told("invalid_value", "must be 301, 302, 303, 307 or 308", "leave it out for 302"),
      ),
    ),
  }),
});

/** Filters the Gateway API has and weft does not. */
const ELSEWHERE = ["RequestMirror", "CORS", "ExtensionRef", "ExternalAuth"];

function filterMessage(known: string) {
  return (issue: { readonly input: unknown }) => {
    const type = String((issue.input as { type?: unknown } | null)?.type ?? issue.input);
    return ELSEWHERE.includes(type)
      ? told("unsupported", `weft does not have the filter ${type} here`, `use ${known}`)
      : told("invalid_value", `must be one of ${known}`, `use ${known}`);
  };
}

const ruleFilter = v.variant(
  "type",
  [requestHeaders, responseHeaders, urlRewrite, requestRedirect],
  filterMessage("RequestHeaderModifier, ResponseHeaderModifier, URLRewrite, RequestRedirect"),
);
const backendFilter = v.variant(
  "type",
  [requestHeaders, responseHeaders],
  filterMessage("RequestHeaderModifier, ResponseHeaderModifier"),
);

const backendRef = fields({
  group: v.exactOptional(oneOf(["", "weft.dev"])),
  kind: v.exactOptional(oneOf(["Service", "Subset"])),
  name: documentName,
  namespace: v.exactOptional(label),
  port: v.exactOptional(anyPort),
  weight: v.exactOptional(integer(0, 1_000_000, "a weight")),
  filters: v.exactOptional(list(backendFilter, 16)),
});

const parentRef = fields({
  group: v.exactOptional(
    v.picklist(
      ["", "weft.dev", "gateway.networking.k8s.io"],
      told("invalid_value", "is not a group weft knows", 'leave it out, or write ""'),
    ),
  ),
  kind: v.exactOptional(
    v.picklist(["Service", "Gateway"], told("invalid_value", "must be Service", "use Service")),
  ),
  name: documentName,
  namespace: v.exactOptional(label),
  port: v.exactOptional(anyPort),
  sectionName: v.exactOptional(documentName),
});

export const httpRouteSpec = fields({
  parentRefs: filled(parentRef, 32, "parent, such as {kind: Service, name: …}"),
  hostnames: v.exactOptional(list(hostPattern, 16)),
  rules: filled(
    fields({
      name: v.exactOptional(documentName),
      matches: v.exactOptional(list(match, 64)),
      filters: v.exactOptional(list(ruleFilter, 16)),
      backendRefs: v.exactOptional(list(backendRef, 16)),
      timeouts: v.exactOptional(
        fields({ request: v.exactOptional(duration), backendRequest: v.exactOptional(duration) }),
      ),
    }),
    16,
    "rule",
  ),
});
