/** TLS alerts (RFC 8446 section 6) that answer a ClientHello without any handshake. */

function fatal(description: number): Uint8Array {
  return Uint8Array.of(21, 3, 3, 0, 2, 2, description);
}

/** In a record of their own, as anybody who has sent a ClientHello understands them. */
export const ALERTS = {
  decodeError: fatal(50),
  internalError: fatal(80),
  missingExtension: fatal(109),
  unrecognizedName: fatal(112),
  noApplicationProtocol: fatal(120),
} as const;

/** Content type of the first record of a TLS client. */
export const TLS_HANDSHAKE = 22;
