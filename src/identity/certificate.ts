/**
 * What a certificate says, read from its DER and not from anybody's formatted text, and whether
 * it is a valid X.509-SVID (SPIFFE X509-SVID standard, sections 4 and 5).
 */
import { createHash, X509Certificate } from "node:crypto";
import { DER, type DerElement, derInside, derOid, derRead } from "./der.ts";
import { parseSpiffeId } from "./spiffe.ts";

export interface CertificateFacts {
  /** Hexadecimal, lower case, without leading zeros. */
  readonly serial: string;
  /** Unix milliseconds. */
  readonly notBefore: number;
  readonly notAfter: number;
  readonly uris: readonly string[];
  readonly dnsNames: readonly string[];
  readonly authority: boolean;
  /** First octet of the key usage bits (RFC 5280, 4.2.1.3); undefined without the extension. */
  readonly keyUsage: number | undefined;
}

const OID_SAN = derOid("2.5.29.17");
const OID_KEY_USAGE = derOid("2.5.29.15");
const OID_BASIC_CONSTRAINTS = derOid("2.5.29.19");
const TAG_DNS = 0x82;
const TAG_URI = 0x86;
const DIGITAL_SIGNATURE = 0x80;
const KEY_CERT_SIGN = 0x04;
const CRL_SIGN = 0x02;

/** The PEM blocks of a text, each with its markers. */
export function pemCertificates(text: string): string[] {
  return text.match(/-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/g) ?? [];
}

/** DER of the first certificate of a PEM text; undefined when there is none. */
export function pemToDer(pem: string): Buffer | undefined {
  const [first] = pemCertificates(pem);
  if (first === undefined) return undefined;
  return Buffer.from(first.replace(/-----[A-Z ]+-----/g, ""), "base64");
}

/** SHA-256 of the DER, hexadecimal: how a token pins a root. */
export function certificateHash(pem: string): string {
  const der = pemToDer(pem);
  return der === undefined ? "" : createHash("sha256").update(der).digest("hex");
}

function timeOf(element: DerElement | undefined): number | undefined {
  if (element === undefined) return undefined;
  const text = element.body.toString("latin1");
  const digits = element.tag === DER.utcTime ? `${text < "5" ? "20" : "19"}${text}` : text;
  const parts = /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/.exec(digits);
  if (parts === null) return undefined;
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] = parts
    .slice(1)
    .map(Number);
  return Date.UTC(year, month - 1, day, hour, minute, second);
}

/** IA5 text without control characters; undefined otherwise (a NUL must never end a name). */
function nameOf(body: Buffer): string | undefined {
  return body.every((byte) => byte > 0x20 && byte < 0x7f) ? body.toString("latin1") : undefined;
}

function extensionValues(extensions: readonly DerElement[]): Map<string, Buffer> | undefined {
  const values = new Map<string, Buffer>();
  for (const extension of extensions) {
    const parts = derInside(extension, DER.sequence);
    const oid = parts?.[0];
    const value = parts?.at(-1);
    if (oid === undefined || value?.tag !== DER.octetString) return undefined;
    const key = oid.whole.toString("hex");
    if (values.has(key)) return undefined;
    values.set(key, value.body);
  }
  return values;
}

/** Reads a certificate; undefined when it is malformed in any part that is looked at. */
export function readCertificate(der: Buffer): CertificateFacts | undefined {
  const outer = derInside(derRead(der)?.[0], DER.sequence);
  const fields = derInside(outer?.[0], DER.sequence);
  if (fields === undefined || fields.length < 7) return undefined;
  const [serial, , , validity] = fields.slice(1);
  const times = derInside(validity, DER.sequence);
  const notBefore = timeOf(times?.[0]);
  const notAfter = timeOf(times?.[1]);
  const extensions = derInside(
    derInside(
      fields.find((field) => field.tag === 0xa3),
      0xa3,
    )?.[0],
    DER.sequence,
  );
  if (serial?.tag !== DER.integer || notBefore === undefined || notAfter === undefined) {
    return undefined;
  }
  const values = extensionValues(extensions ?? []);
  const names = readNames(values?.get(OID_SAN.toString("hex")));
  if (values === undefined || names === undefined) return undefined;
  const usage = derRead(values.get(OID_KEY_USAGE.toString("hex")) ?? Buffer.alloc(0))?.[0];
  const basic = values.get(OID_BASIC_CONSTRAINTS.toString("hex"));
  const constraints = basic === undefined ? [] : derInside(derRead(basic)?.[0], DER.sequence);
  if (constraints === undefined) return undefined;
  return {
    serial: serial.body.toString("hex").replace(/^0+(?=.)/, ""),
    notBefore,
    notAfter,
    ...names,
    authority: constraints.some((each) => each.tag === DER.boolean && each.body[0] !== 0),
    keyUsage: usage?.tag === DER.bitString ? (usage.body[1] ?? 0) : undefined,
  };
}

function readNames(
  san: Buffer | undefined,
): { readonly uris: string[]; readonly dnsNames: string[] } | undefined {
  const uris: string[] = [];
  const dnsNames: string[] = [];
  if (san === undefined) return { uris, dnsNames };
  const names = derInside(derRead(san)?.[0], DER.sequence);
  if (names === undefined) return undefined;
  for (const { tag, body } of names) {
    if (tag !== TAG_DNS && tag !== TAG_URI) continue;
    const name = nameOf(body);
    if (name === undefined) return undefined;
    (tag === TAG_DNS ? dnsNames : uris).push(name);
  }
  return { uris, dnsNames };
}

/** The SPIFFE ID of a leaf that follows the SVID rules, or why it does not. */
export function svidIdentity(
  der: Buffer,
): { readonly id: string; readonly facts: CertificateFacts } | { readonly refused: string } {
  const facts = readCertificate(der);
  if (facts === undefined) return { refused: "the certificate is malformed" };
  const [id, ...more] = facts.uris;
  if (id === undefined) return { refused: "the certificate has no URI name" };
  if (more.length > 0) return { refused: "the certificate has more than one URI name" };
  const parsed = parseSpiffeId(id);
  if (parsed === undefined) return { refused: `${id} is not a SPIFFE ID` };
  if (parsed.path === "") return { refused: `${id} names a trust domain, not a workload` };
  if (facts.authority) return { refused: "a workload's certificate must not be an authority" };
  const usage = facts.keyUsage ?? 0;
  if ((usage & DIGITAL_SIGNATURE) === 0) return { refused: "key usage lacks digitalSignature" };
  if ((usage & (KEY_CERT_SIGN | CRL_SIGN)) !== 0) {
    return { refused: "key usage allows signing certificates" };
  }
  return { id, facts };
}

/**
 * Verifies a PEM chain, leaf first, under one of `roots` at `now`. Returns the leaf's identity,
 * or why it is refused.
 */
export function verifyChain(
  chainPem: string,
  roots: readonly string[],
  now: number,
): { readonly id: string; readonly facts: CertificateFacts } | { readonly refused: string } {
  const chain = pemCertificates(chainPem);
  const [leaf] = chain;
  if (leaf === undefined) return { refused: "there is no certificate" };
  const identity = svidIdentity(pemToDer(leaf) ?? Buffer.alloc(0));
  if ("refused" in identity) return identity;
  try {
    const refused = linksRefused(chain, roots, now);
    return refused === undefined ? identity : { refused };
  } catch {
    return { refused: "the certificate is malformed" };
  }
}

function linksRefused(
  chain: readonly string[],
  roots: readonly string[],
  now: number,
): string | undefined {
  const anchors = roots.map((root) => new X509Certificate(root));
  for (const [at, pem] of chain.entries()) {
    const current = new X509Certificate(pem);
    const facts = readCertificate(current.raw);
    if (facts === undefined) return "the certificate is malformed";
    if (now < facts.notBefore) return "the certificate is not valid yet";
    if (now > facts.notAfter) return "the certificate has expired";
    if (at > 0 && !mayIssue(facts)) return "an issuer in the chain is not an authority";
    const anchor = anchors.find((root) => issued(root, current));
    if (anchor !== undefined) {
      const root = readCertificate(anchor.raw);
      return root !== undefined && now <= root.notAfter ? undefined : "the root has expired";
    }
    const next = chain[at + 1];
    if (next === undefined) break;
    if (!issued(new X509Certificate(next), current)) return "the chain is broken";
  }
  return "the chain does not end at a trusted root";
}

function mayIssue(facts: CertificateFacts): boolean {
  return facts.authority && ((facts.keyUsage ?? 0) & KEY_CERT_SIGN) !== 0;
}

function issued(issuer: X509Certificate, subject: X509Certificate): boolean {
  return subject.checkIssued(issuer) && subject.verify(issuer.publicKey);
}
