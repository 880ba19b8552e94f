/** Certificate requests (PKCS#10, RFC 2986) as the authority sees them: a key, and nothing else. */
import { createPublicKey, type KeyObject, verify } from "node:crypto";
import { Failure } from "../error.ts";
import { DER, derInside, derOid, derRead } from "./der.ts";

const MAX_LENGTH = 8192;
const ECDSA_WITH_SHA256 = derOid("1.2.840.10045.4.3.2");

function refuse(why: string): Failure {
  return new Failure(
    "csr_invalid",
    `the certificate request is refused: ${why}`,
    "send a PKCS#10 request in PEM, for a P-256 key and signed with it (SHA-256)",
    { status: 400 },
  );
}

/**
 * The public key of a request, after checking that its sender holds the private key. Names and
 * extensions in the request are not looked at. Throws a `Failure` (400).
 */
export function requestedKey(csrPem: string): KeyObject {
  if (csrPem.length > MAX_LENGTH) throw refuse("it is too long");
  const block =
    /-----BEGIN CERTIFICATE REQUEST-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE REQUEST-----/.exec(
      csrPem,
    )?.[1];
  if (block === undefined) throw refuse("it is not PEM");
  const outer = derInside(derRead(Buffer.from(block, "base64"))?.[0], DER.sequence);
  const [info, algorithm, signature, ...rest] = outer ?? [];
  const spki = derInside(info, DER.sequence)?.[2];
  if (info === undefined || spki === undefined || signature === undefined || rest.length > 0) {
    throw refuse("it is malformed");
  }
  const [oid] = derInside(algorithm, DER.sequence) ?? [];
  if (oid === undefined || !oid.whole.equals(ECDSA_WITH_SHA256)) {
    throw refuse("it is not signed with ECDSA and SHA-256");
  }
  let key: KeyObject;
  try {
    key = createPublicKey({ key: spki.whole, format: "der", type: "spki" });
  } catch {
    throw refuse("its key cannot be read");
  }
  const curve = key.asymmetricKeyDetails?.namedCurve;
  if (key.asymmetricKeyType !== "ec" || (curve !== "prime256v1" && curve !== "P-256")) {
    throw refuse("its key is not P-256");
  }
  let good = false;
  try {
    good = verify("sha256", info.whole, key, signature.body.subarray(1));
  } catch {
    // A signature that cannot be parsed is a wrong one.
  }
  if (signature.tag !== DER.bitString || signature.body[0] !== 0 || !good) {
    throw refuse("its signature is wrong");
  }
  return key;
}
