/** The nats-server weft carries, and the oldest one it accepts from outside. */

export const NATS_VERSION = "2.15.1";

/** SHA-256 of the official linux-amd64 executable. */
export const NATS_SHA256 = "dd9b8a99f78955e35108355176d2fe61269efb909698eb9fce3d5d81a70e2bda";

/** Older servers lie inside CVE-2025-30215. */
export const NATS_FLOOR = "2.10.27";

/** Whether a version such as `2.15.1` or `v2.11.0-RC.1` is at least `floor`. */
export function isAtLeast(version: string, floor: string): boolean {
  const numbers = (text: string) => text.replace(/^v/, "").split(/[.-]/).slice(0, 3).map(Number);
  const have = numbers(version);
  const need = numbers(floor);
  for (let at = 0; at < 3; at++) {
    const left = have[at] ?? 0;
    const right = need[at] ?? 0;
    if (Number.isNaN(left)) return false;
    if (left !== right) return left > right;
  }
  return true;
}
