/** The Ed25519 key that signs configuration; no certificate is ever accepted in its place. */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
} from "node:crypto";
import { Failure } from "../error.ts";
import { readSecret, writeSecret } from "./secret-file.ts";

export interface ConfigKey {
  /** First 16 hexadecimal digits of the SHA-256 of the raw public key. */
  readonly kid: string;
  /** Raw public key, base64url: what proxies list in `configKeys`. */
  readonly publicKey: string;
  readonly privateKey: KeyObject;
}

function configKeyOf(privateKey: KeyObject): ConfigKey {
  const raw = createPublicKey(privateKey).export({ format: "der", type: "spki" }).subarray(-32);
  return {
    kid: createHash("sha256").update(raw).digest("hex").slice(0, 16),
    publicKey: raw.toString("base64url"),
    privateKey,
  };
}

/** A key that is not stored; for tests and for replacing one. */
export function createConfigKey(): ConfigKey {
  return configKeyOf(generateKeyPairSync("ed25519").privateKey);
}

/** Reads the key from `path` or makes one. */
export function openConfigKey(path: string): ConfigKey {
  const stored = readSecret(path);
  if (stored === undefined) {
    const key = createConfigKey();
    writeSecret(path, key.privateKey.export({ format: "pem", type: "pkcs8" }).toString());
    return key;
  }
  try {
    const privateKey = createPrivateKey(stored);
    if (privateKey.asymmetricKeyType === "ed25519") return configKeyOf(privateKey);
  } catch {
    // Reported below like a key of another kind.
  }
  throw new Failure(
    "config_key_corrupt",
    `${path} does not hold an Ed25519 private key`,
    "restore the file from a backup; with a new key every proxy has to join again",
  );
}
