import { CLASS, COLON, HOST } from "./chars.ts";
import { Malformed } from "./malformed.ts";

const OPEN_BRACKET = 91;
const CLOSE_BRACKET = 93;
const PORT_MAX = 65_535;

/**
 * Checks `host[:port]` between two offsets and returns it in lower case. The host is a registered
 * name, an IPv4 address or a bracketed IPv6 address; user information is refused (RFC 9110, 4.2.4).
 */
export function readAuthority(text: string, start: number, end: number): string {
  let upper = false;
  let i = start;
  if (text.charCodeAt(i) === OPEN_BRACKET) {
    i = closingBracket(text, start, end) + 1;
    upper = true;
  } else {
    for (; i < end; i++) {
      const code = text.charCodeAt(i);
      if ((CLASS[code]! & HOST) === 0) break;
      if (code >= 65 && code <= 90) upper = true;
    }
  }
  if (i === start) throw new Malformed("host is empty or invalid");
  if (i < end) checkPort(text, i, end);
  const authority = text.slice(start, end);
  return upper ? authority.toLowerCase() : authority;
}

function closingBracket(text: string, start: number, end: number): number {
  let i = start + 1;
  let colons = 0;
  for (; i < end; i++) {
    const code = text.charCodeAt(i);
    if (code === CLOSE_BRACKET) break;
    if (code === COLON) colons++;
    const lower = code | 0x20;
    const hex = (code >= 48 && code <= 57) || (lower >= 97 && lower <= 102);
    if (!hex && code !== COLON && code !== 46) throw new Malformed("IPv6 address is invalid");
  }
  if (i === end || colons < 2) throw new Malformed("IPv6 address is invalid");
  return i;
}

function checkPort(text: string, colon: number, end: number): void {
  const digits = end - colon - 1;
  if (text.charCodeAt(colon) !== COLON) throw new Malformed("host has an invalid character");
  if (digits < 1 || digits > 5) throw new Malformed("port is invalid");
  let port = 0;
  for (let i = colon + 1; i < end; i++) {
    const digit = text.charCodeAt(i) - 48;
    if (digit < 0 || digit > 9) throw new Malformed("port is not a number");
    port = port * 10 + digit;
  }
  if (port > PORT_MAX) throw new Malformed("port is above 65535");
}

/** Both in lower case: the same authority, a default port given or not. */
export function sameAuthority(left: string, right: string, defaultPort: number): boolean {
  if (left === right) return true;
  const port = `:${defaultPort}`;
  return left + port === right || right + port === left;
}
