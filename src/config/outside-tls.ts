/** `tls` of a TrafficPolicy: how callers' proxies reach servers that have no proxy of the mesh. */
import { X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import * as v from "valibot";
import { fields, filled, hostname, oneOf, told } from "./fields.ts";

/** A document repeats them for each port of a service, and must fit into one message. */
const CERTIFICATES_MAX = 12 * 1024;
const BLOCK = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

/** The certificates in a text, PEM, without what stands between them. */
export function certificateBlocks(text: string): string[] {
  return text.match(BLOCK) ?? [];
}

function isCertificate(block: string): boolean {
  try {
    return new X509Certificate(block).raw.length > 0;
  } catch {
    return false;
  }
}

const certificates = v.pipe(
  v.string(),
  v.maxLength(
    CERTIFICATES_MAX,
    told(
      "invalid_value",
      "is longer than 12 KiB",
      "keep the authorities that sign this server's certificate",
    ),
  ),
  v.check(
    (text) => !text.includes("PRIVATE KEY"),
    told("invalid_value", "holds a private key", "remove it at once: documents hold no secrets"),
  ),
  v.check(
    (text) => {
      const blocks = certificateBlocks(text);
      const begun = text.split("-----BEGIN").length - 1;
      return blocks.length > 0 && blocks.length === begun && blocks.every(isCertificate);
    },
    told(
      "invalid_value",
      "is not a list of certificates",
      "paste their text, from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----",
    ),
  ),
);

const serverName = v.pipe(
  hostname,
  v.check(
    (value) => isIP(value) === 0,
    told(
      "invalid_hostname",
      "is an address, and only names are sent",
      "leave it out; an address is checked by subjectAltNames",
    ),
  ),
);

const altName = v.pipe(
  v.string(),
  v.check(
    (value) => isIP(value) !== 0 || v.is(hostname, value),
    told(
      "invalid_hostname",
      "is neither a host name nor an IP address",
      "write it as it stands in the certificate, without wildcard",
    ),
  ),
);

/** Secrets stay where they are: a document names the file that holds them. */
const file = v.pipe(
  v.string(),
  v.regex(
    /^\/[^\0\n]{0,4095}$/,
    told("invalid_path", "is not the path of a file", "write the full path on the proxy's host"),
  ),
);

export const outsideTls = fields({
  mode: oneOf(["DISABLE", "SIMPLE", "MUTUAL"]),
  sni: v.exactOptional(serverName),
  caCertificates: v.exactOptional(certificates),
  subjectAltNames: v.exactOptional(filled(altName, 32, "name")),
  clientCertificate: v.exactOptional(file),
  privateKey: v.exactOptional(file),
  insecureSkipVerify: v.exactOptional(v.boolean()),
});
