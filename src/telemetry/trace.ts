/** Request ids and W3C trace context (https://www.w3.org/TR/trace-context/). */

const HEX3 = Array.from({ length: 4096 }, (_, i) => i.toString(16).padStart(3, "0"));

/** `digits` random hexadecimal digits, a multiple of three or more being cheapest. */
function hex(digits: number, random: () => number): string {
  let text = "";
  let left = digits;
  // One random number carries 52 bits: twelve digits are taken from each.
  while (left > 0) {
    const high = Math.floor(random() * 0x1000000);
    const low = Math.floor(random() * 0x1000000);
    text += HEX3[high >>> 12]! + HEX3[high & 0xfff]! + HEX3[low >>> 12]! + HEX3[low & 0xfff]!;
    left -= 12;
  }
  return text.length === digits ? text : text.slice(0, digits);
}

/** An id in the form of a version 4 UUID. */
export function newRequestId(random: () => number): string {
  const digits = hex(32, random);
  const variant = "89ab"[Math.floor(random() * 4)];
  return (
    `${digits.slice(0, 8)}-${digits.slice(8, 12)}-4${digits.slice(13, 16)}-` +
    `${variant}${digits.slice(17, 20)}-${digits.slice(20)}`
  );
}

/** A new trace that is not sampled: nobody asked for it to be recorded. */
export function newTraceparent(random: () => number): string {
  return `00-${nonZero(32, random)}-${nonZero(16, random)}-00`;
}

/** The specification makes all zeroes invalid. */
function nonZero(digits: number, random: () => number): string {
  const text = hex(digits, random);
  return /[^0]/.test(text) ? text : `${text.slice(1)}1`;
}

const TRACEPARENT = /^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/;

/** The same trace with a span of this hop as parent; undefined = not a valid version 00 value. */
export function nextTraceparent(value: string, random: () => number): string | undefined {
  if (!TRACEPARENT.test(value)) return undefined;
  return value.slice(0, 36) + nonZero(16, random) + value.slice(52);
}

/** A head's text with a traceparent of the same length in place of `old`; offsets stay good. */
export function replaceTraceparent(text: string, old: string, value: string): string {
  for (let at = text.indexOf(old); at !== -1; at = text.indexOf(old, at + 1)) {
    let before = at - 1;
    while (text.charCodeAt(before) === 0x20 || text.charCodeAt(before) === 0x09) before--;
    const name = text.slice(before - 11, before + 1);
    if (text.charCodeAt(before - 12) === 0x0a && name.toLowerCase() === "traceparent:") {
      return text.slice(0, at) + value + text.slice(at + old.length);
    }
  }
  return text;
}
