/** The fixed signing key of the golden fixtures. */
import { createPrivateKey } from "node:crypto";
import golden from "../../test/fixtures/contracts/config-message.json" with { type: "json" };

/** What precedes the 32 bytes of an Ed25519 seed in PKCS #8. */
const PREFIX = "302e020100300506032b657004220420";

export const GOLDEN_KEY = {
  kid: golden.kid,
  publicKey: golden.publicKey,
  privateKey: createPrivateKey({
    key: Buffer.from(PREFIX + golden.privateSeed, "hex"),
    format: "der",
    type: "pkcs8",
  }),
};
