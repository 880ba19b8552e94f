/** Ranges of addresses as people write them: `10.0.0.0/8`, `::1/128`, or an address alone. */
import { BlockList, isIP } from "node:net";

export interface AddressRange {
  readonly address: string;
  readonly bits: number;
  readonly family: "ipv4" | "ipv6";
}

/** Undefined where `text` is no range. */
export function parseRange(text: string): AddressRange | undefined {
  const [address = "", bits, ...more] = text.split("/");
  const family = isIP(address);
  if (family === 0 || address.includes("%") || more.length > 0) return undefined;
  const width = family === 4 ? 32 : 128;
  if (bits !== undefined && (!/^(?:0|[1-9]\d{0,2})$/.test(bits) || +bits > width)) return undefined;
  return {
    address,
    bits: bits === undefined ? width : Number(bits),
    family: family === 4 ? "ipv4" : "ipv6",
  };
}

/** Whether an address lies in the range; false when either is malformed. */
export function inRange(address: string, range: string): boolean {
  const parsed = parseRange(range);
  if (parsed === undefined || isIP(address) !== isIP(parsed.address)) return false;
  const list = new BlockList();
  list.addSubnet(parsed.address, parsed.bits, parsed.family);
  return list.check(address, parsed.family);
}
