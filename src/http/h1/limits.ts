/** What one HTTP/1.1 peer may make us keep; every number is a refusal, never a truncation. */
export interface H1Limits {
  /** Start line and fields together, the final empty line included. */
  readonly headBytesMax: number;
  readonly fieldsMax: number;
  readonly methodBytesMax: number;
  /** Chunk extensions carry nothing we use: enough for honest ones, no room for a flood. */
  readonly chunkExtensionBytesMax: number;
  readonly messageExtensionBytesMax: number;
  readonly trailerBytesMax: number;
  /** Interim (1xx) answers before a final one. */
  readonly interimMax: number;
}

/** What other proxies of the mesh may send: a head within the limits, and what they add to it. */
export function peerLimits(limits: H1Limits): H1Limits {
  return {
    ...limits,
    headBytesMax: limits.headBytesMax + 16 * 1024,
    fieldsMax: limits.fieldsMax + 64,
  };
}

export const H1_LIMITS: H1Limits = {
  headBytesMax: 60 * 1024,
  fieldsMax: 100,
  methodBytesMax: 32,
  chunkExtensionBytesMax: 256,
  messageExtensionBytesMax: 4096,
  trailerBytesMax: 8 * 1024,
  interimMax: 10,
};
