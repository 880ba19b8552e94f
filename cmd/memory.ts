/** What a process may hold for slow peers, from the memory that it may use. */

const SHARE = 1 / 8;
const MAX = 256 * 1024 * 1024;

/** Bytes. `memory`: the limit of the control group, else the machine's; 0 if it is not known. */
export function pendingMax(memory = process.constrainedMemory()): number {
  return memory > 0 ? Math.min(MAX, Math.floor(memory * SHARE)) : MAX;
}
