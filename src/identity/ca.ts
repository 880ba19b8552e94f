/**
 * The mesh's certificate authority: root → intermediate → leaf, all ECDSA P-256.
 *
 * Root and intermediate, keys and certificates, live in one file that is replaced as a whole, so
 * no crash leaves half an authority. `ca/root.pem` is a copy for clients.
 */
import "reflect-metadata";
import "./reflect.ts";
import { createPrivateKey, randomBytes, X509Certificate } from "node:crypto";
import { join } from "node:path";
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  type Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509CertificateGenerator,
} from "@peculiar/x509";
import { Failure } from "../error.ts";
import { certificateHash, pemCertificates, readCertificate } from "./certificate.ts";
import { requestedKey } from "./csr.ts";
import { type LeafIssuer, leafIssuer, signLeaf } from "./leaf.ts";
import { toPem } from "./pem.ts";
import { readSecret, writeDurably, writeSecret } from "./secret-file.ts";

export interface LeafRequest {
  /** PKCS#10 PEM; only its key is used. */
  readonly csrPem: string;
  readonly spiffeId: string;
  readonly dnsNames: readonly string[];
  readonly ipAddresses?: readonly string[];
  readonly ttlMs: number;
}

export interface IssuedLeaf {
  /** Leaf and intermediate. */
  readonly chainPem: string;
  /** Hexadecimal, lower case. */
  readonly serial: string;
  /** Unix milliseconds. */
  readonly notBefore: number;
  readonly notAfter: number;
}

export interface Authority {
  readonly trustDomain: string;
  /** Root certificates, PEM. */
  readonly bundle: readonly string[];
  /** SHA-256 of each root's DER, hexadecimal: what tokens pin. */
  readonly rootHashes: readonly string[];
  /** Throws a `Failure` (400) for a bad request. */
  issue(request: LeafRequest): Promise<IssuedLeaf>;
}

interface Pair {
  readonly key: CryptoKey;
  readonly keyPem: string;
  readonly certificate: string;
}

interface CertificateShape {
  readonly subject: string;
  readonly issuer: string;
  readonly notBefore: number;
  readonly notAfter: number;
  readonly publicKey: CryptoKey;
  readonly signingKey: CryptoKey;
  readonly extensions: Extension[];
}

const EC = { name: "ECDSA", namedCurve: "P-256" } as const;
const SIGNING = { name: "ECDSA", hash: "SHA-256" } as const;
/** Clocks differ: a certificate is good a minute before it was made. */
const BACKDATE_MS = 60_000;
const DAY_MS = 86_400_000;
const ROOT_TTL_MS = 3_650 * DAY_MS;
const INTERMEDIATE_TTL_MS = 365 * DAY_MS;
/** An intermediate this close to its end is replaced before it signs again. */
const INTERMEDIATE_LEFT_MS = 90 * DAY_MS;
const FIX_BACKUP = "restore the control plane's data folder from a backup";

/** A positive number without leading zeros, whatever the random bits. */
function newSerial(): Buffer {
  const serial = randomBytes(16);
  serial[0] = ((serial[0] ?? 0) & 0x3f) | 0x40;
  return serial;
}

async function sign(shape: CertificateShape): Promise<string> {
  const { notBefore, notAfter, ...rest } = shape;
  const certificate = await X509CertificateGenerator.create({
    ...rest,
    serialNumber: newSerial().toString("hex"),
    notBefore: new Date(notBefore),
    notAfter: new Date(notAfter),
    signingAlgorithm: SIGNING,
  });
  return `${certificate.toString("pem")}\n`;
}

async function newKey(): Promise<{ readonly keys: CryptoKeyPair; readonly pem: string }> {
  const keys = await crypto.subtle.generateKey(EC, true, ["sign", "verify"]);
  const der = Buffer.from(await crypto.subtle.exportKey("pkcs8", keys.privateKey));
  const key = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
  return { keys, pem: key.export({ format: "pem", type: "pkcs8" }).toString() };
}

async function authorityExtensions(
  trustDomain: string,
  publicKey: CryptoKey,
  issuerKey: CryptoKey,
  depth: number,
): Promise<Extension[]> {
  return [
    new BasicConstraintsExtension(true, depth, true),
    new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
    new SubjectAlternativeNameExtension([{ type: "url", value: `spiffe://${trustDomain}` }]),
    await SubjectKeyIdentifierExtension.create(publicKey),
    await AuthorityKeyIdentifierExtension.create(issuerKey),
  ];
}

async function createRoot(trustDomain: string, now: number): Promise<Pair> {
  const { keys, pem } = await newKey();
  const name = `CN=weft root ${randomBytes(4).toString("hex")},O=${trustDomain}`;
  const certificate = await sign({
    subject: name,
    issuer: name,
    notBefore: now - BACKDATE_MS,
    notAfter: now + ROOT_TTL_MS,
    publicKey: keys.publicKey,
    signingKey: keys.privateKey,
    extensions: await authorityExtensions(trustDomain, keys.publicKey, keys.publicKey, 1),
  });
  return { key: keys.privateKey, keyPem: pem, certificate };
}

async function createIntermediate(root: Pair, trustDomain: string, now: number): Promise<Pair> {
  const { keys, pem } = await newKey();
  const rootCertificate = new X509Certificate(root.certificate);
  const rootKey = await publicKeyOf(root.certificate);
  const certificate = await sign({
    subject: `CN=weft issuer ${randomBytes(4).toString("hex")},O=${trustDomain}`,
    issuer: issuerName(rootCertificate),
    notBefore: now - BACKDATE_MS,
    notAfter: Math.min(now + INTERMEDIATE_TTL_MS, rootCertificate.validToDate.getTime()),
    publicKey: keys.publicKey,
    signingKey: root.key,
    extensions: await authorityExtensions(trustDomain, keys.publicKey, rootKey, 0),
  });
  return { key: keys.privateKey, keyPem: pem, certificate };
}

/** The subject as the generator wants an issuer: `CN=…,O=…` in the order it was written. */
function issuerName(certificate: X509Certificate): string {
  return certificate.subject.split("\n").join(",");
}

async function publicKeyOf(certificatePem: string): Promise<CryptoKey> {
  const spki = new X509Certificate(certificatePem).publicKey.export({
    format: "der",
    type: "spki",
  });
  return crypto.subtle.importKey("spki", new Uint8Array(spki), EC, true, ["verify"]);
}

function corrupt(path: string, why: string): Failure {
  return new Failure("ca_corrupt", `${path}: ${why}`, FIX_BACKUP);
}

async function readPair(path: string, keyPem: string, certificate: string): Promise<Pair> {
  try {
    const key = createPrivateKey(keyPem);
    if (!new X509Certificate(certificate).checkPrivateKey(key)) {
      throw corrupt(path, "a key does not belong to its certificate");
    }
    const der = new Uint8Array(key.export({ format: "der", type: "pkcs8" }));
    return {
      key: await crypto.subtle.importKey("pkcs8", der, EC, false, ["sign"]),
      keyPem,
      certificate,
    };
  } catch (error) {
    throw error instanceof Failure ? error : corrupt(path, "a key or certificate is unreadable");
  }
}

async function readPairs(path: string, text: string): Promise<{ root: Pair; issuer: Pair }> {
  const keys = text.match(/-----BEGIN PRIVATE KEY-----[^-]+-----END PRIVATE KEY-----\n?/g) ?? [];
  const certificates = pemCertificates(text).map((pem) => `${pem}\n`);
  const [rootKey, issuerKey] = keys;
  const [rootCertificate, issuerCertificate] = certificates;
  if (rootKey === undefined || issuerKey === undefined) throw corrupt(path, "a key is missing");
  if (rootCertificate === undefined || issuerCertificate === undefined) {
    throw corrupt(path, "a certificate is missing");
  }
  return {
    root: await readPair(path, rootKey, rootCertificate),
    issuer: await readPair(path, issuerKey, issuerCertificate),
  };
}

function checkRoot(root: Pair, trustDomain: string, now: number): void {
  const facts = readCertificate(new X509Certificate(root.certificate).raw);
  const [uri = ""] = facts?.uris ?? [];
  if (uri !== `spiffe://${trustDomain}`) {
    const found = uri.replace("spiffe://", "");
    throw new Failure(
      "trust_domain_changed",
      `the authority in this data folder is for trust domain ${found}, not ${trustDomain}`,
      `start with --trust-domain ${found}; a new trust domain needs a new data folder`,
    );
  }
  if (now > (facts?.notAfter ?? 0)) {
    throw new Failure(
      "root_expired",
      "the mesh's root certificate has expired, or this machine's clock is wrong",
      "check date -u; if it is right: a new data folder, where every workload joins anew",
    );
  }
}

function signerOf(path: string, issuer: Pair): LeafIssuer {
  const der = new X509Certificate(issuer.certificate).raw;
  const signer = leafIssuer(der, issuer.keyPem);
  if (signer === undefined) throw corrupt(path, "the intermediate has no key identifier");
  return signer;
}

/** Opened authority; holds the root and the current intermediate. */
class OpenAuthority implements Authority {
  readonly trustDomain: string;
  readonly bundle: readonly string[];
  readonly rootHashes: readonly string[];
  readonly #path: string;
  readonly #now: () => number;
  readonly #root: Pair;
  #issuer: Pair;
  #signer: LeafIssuer;

  constructor(path: string, trustDomain: string, now: () => number, root: Pair, issuer: Pair) {
    this.#path = path;
    this.trustDomain = trustDomain;
    this.#now = now;
    this.#root = root;
    this.#issuer = issuer;
    this.#signer = signerOf(path, issuer);
    this.bundle = [root.certificate];
    this.rootHashes = [certificateHash(root.certificate)];
  }

  async renewIssuer(): Promise<void> {
    const now = this.#now();
    const end = new X509Certificate(this.#issuer.certificate).validToDate.getTime();
    if (end - now > INTERMEDIATE_LEFT_MS) return;
    this.#issuer = await createIntermediate(this.#root, this.trustDomain, now);
    this.#signer = signerOf(this.#path, this.#issuer);
    store(this.#path, this.#root, this.#issuer);
  }

  async issue(request: LeafRequest): Promise<IssuedLeaf> {
    const key = requestedKey(request.csrPem);
    await this.renewIssuer();
    const now = this.#now();
    const issuer = this.#issuer;
    const issuerEnd = new X509Certificate(issuer.certificate).validToDate.getTime();
    // X.509 counts whole seconds.
    const notBefore = Math.floor((now - BACKDATE_MS) / 1000) * 1000;
    const wanted = Math.floor((now + request.ttlMs) / 1000) * 1000;
    const notAfter = Math.min(wanted, issuerEnd);
    const serial = newSerial();
    const der = signLeaf(this.#signer, {
      serial,
      notBefore,
      notAfter,
      publicKey: key,
      uri: request.spiffeId,
      dnsNames: request.dnsNames,
      ipAddresses: request.ipAddresses ?? [],
    });
    const chainPem = `${toPem("CERTIFICATE", der)}${issuer.certificate}`;
    return { chainPem, serial: serial.toString("hex"), notBefore, notAfter };
  }
}

function store(path: string, root: Pair, issuer: Pair): void {
  writeSecret(path, root.keyPem + root.certificate + issuer.keyPem + issuer.certificate);
}

/**
 * Opens the authority of a control plane's data folder, or creates it: `keys/ca.key` (secret) and
 * `ca/root.pem` (public). Throws a `Failure` when files are damaged, exposed, or for another
 * trust domain.
 */
export async function openAuthority(
  dataDir: string,
  trustDomain: string,
  now: () => number,
): Promise<Authority> {
  const path = join(dataDir, "keys", "ca.key");
  const stored = readSecret(path);
  let pairs: { root: Pair; issuer: Pair };
  if (stored === undefined) {
    const root = await createRoot(trustDomain, now());
    pairs = { root, issuer: await createIntermediate(root, trustDomain, now()) };
    store(path, pairs.root, pairs.issuer);
  } else {
    pairs = await readPairs(path, stored);
    checkRoot(pairs.root, trustDomain, now());
  }
  writeDurably(join(dataDir, "ca", "root.pem"), pairs.root.certificate, 0o644);
  const authority = new OpenAuthority(path, trustDomain, now, pairs.root, pairs.issuer);
  await authority.renewIssuer();
  return authority;
}
