/** Character classes of RFC 9110 and RFC 9112 as one table, indexed by latin1 code. */

export const CR = 13;
export const LF = 10;
export const SP = 32;
export const HTAB = 9;
export const COLON = 58;

/** `tchar`: what names and methods are made of. */
export const TOKEN = 1;
/** `field-vchar`, obs-text included, and the blanks allowed between. */
export const VALUE = 2;
/** Visible ASCII without `#`: a request target never carries a fragment. */
export const TARGET = 4;
/** A registered name or an IPv4 address. */
export const HOST = 8;

function table(): Uint8Array {
  const classes = new Uint8Array(256);
  const add = (flag: number, from: number, to: number) => {
    for (let code = from; code <= to; code++) classes[code]! |= flag;
  };
  const alphanumeric = (flag: number) => {
    add(flag, 0x30, 0x39);
    add(flag, 0x41, 0x5a);
    add(flag, 0x61, 0x7a);
  };
  const each = (flag: number, text: string) => {
    for (const char of text) classes[char.charCodeAt(0)]! |= flag;
  };
  alphanumeric(TOKEN);
  each(TOKEN, "!#$%&'*+-.^_`|~");
  add(VALUE, 0x20, 0x7e);
  add(VALUE, 0x80, 0xff);
  each(VALUE, "\t");
  add(TARGET, 0x21, 0x7e);
  classes["#".charCodeAt(0)]! &= ~TARGET;
  alphanumeric(HOST);
  each(HOST, "-._~");
  return classes;
}

export const CLASS: Uint8Array = table();

/**
 * Whether the token at `start` is `name` (lower case, letters, digits and `-` only), whatever its
 * case. Setting bit 5 lowers a letter and moves no other token character onto one of a name.
 */
export function sameToken(text: string, start: number, name: string): boolean {
  for (let i = 0; i < name.length; i++) {
    if ((text.charCodeAt(start + i) | 0x20) !== name.charCodeAt(i)) return false;
  }
  return true;
}

/** First offset at or after `start` that is no blank. */
export function skipBlank(text: string, start: number): number {
  let i = start;
  for (;;) {
    const code = text.charCodeAt(i);
    if (code !== SP && code !== HTAB) return i;
    i++;
  }
}

/** Offset after the last character before `end` that is no blank, not below `start`. */
export function trimBlank(text: string, start: number, end: number): number {
  let i = end;
  while (i > start) {
    const code = text.charCodeAt(i - 1);
    if (code !== SP && code !== HTAB) return i;
    i--;
  }
  return i;
}
