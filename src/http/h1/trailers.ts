import { eachField, FieldScan, scanFields } from "./fields.ts";
import type { H1Limits } from "./limits.ts";
import { Malformed } from "./malformed.ts";

/** Fields that mean something only before a body: framing, routing, credentials, conditions. */
const NEVER_TRAILERS: ReadonlySet<string> = new Set([
  ...["age", "authorization", "cache-control", "connection", "cookie", "date", "expect"],
  ...["expires", "forwarded", "host", "http2-settings", "keep-alive", "location"],
  ...["max-forwards", "origin", "pragma", "range", "referer", "retry-after", "set-cookie"],
  ...["te", "traceparent", "tracestate", "trailer", "transfer-encoding", "upgrade", "vary"],
  ...["via", "warning", "www-authenticate", "x-real-ip", "x-request-id"],
]);
const NEVER_PREFIXES = ["content-", "if-", "proxy-", "weft-", "x-forwarded-", "x-http-method"];

/**
 * The lines of a trailer section (its final empty line included) that may be passed on, as raw
 * lines with their CRLF. @throws Malformed
 */
export function filterTrailers(text: string, limits: H1Limits): string {
  try {
    scanFields(new FieldScan(), text, 0, limits.fieldsMax);
  } catch (cause) {
    // Whatever a field would mean in a head, here it is only well-formed or not.
    throw new Malformed(`trailer section is malformed: ${cause}`);
  }
  let kept = "";
  eachField(text, 0, (line, nameEnd, lineEnd) => {
    const name = text.slice(line, nameEnd).toLowerCase();
    if (NEVER_TRAILERS.has(name)) return;
    if (NEVER_PREFIXES.some((prefix) => name.startsWith(prefix))) return;
    kept += text.slice(line, lineEnd + 2);
  });
  return kept;
}
