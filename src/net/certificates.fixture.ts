/** Certificates for tests, made by the openssl command line. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface TestIdentity {
  readonly cert: string;
  readonly key: string;
  readonly uri: string;
}

/** What a certificate may get wrong; absent parts are as they should be. */
export interface Flaw {
  readonly names?: string;
  readonly usage?: string;
  readonly basic?: string;
  /** Seconds from now. */
  readonly from?: number;
  readonly to?: number;
}

export interface TestAuthority {
  readonly root: string;
  /** A leaf as CONTRACTS describe it: one URI name, DNS names of the service. */
  issue(service: string, namespace?: string): TestIdentity;
  /** A leaf with a flaw. */
  flawed(service: string, flaw: Flaw): TestIdentity;
}

function openssl(folder: string, ...args: readonly string[]): void {
  const done = Bun.spawnSync(["openssl", ...args], { cwd: folder, stderr: "pipe" });
  if (done.exitCode !== 0) throw new Error(`openssl ${args.join(" ")}: ${done.stderr}`);
}

const NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"] as const;

const CA_CONFIG = `[ca]
default_ca = test
[test]
database = index.txt
new_certs_dir = .
default_md = sha256
policy = any
rand_serial = yes
[any]
commonName = optional
`;

export function testAuthority(trustDomain = "weft.test"): TestAuthority {
  const folder = mkdtempSync(join(tmpdir(), "weft-ca-"));
  const at = (name: string) => join(folder, name);
  openssl(
    folder,
    ...["req", "-x509", ...NEW_KEY, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2"],
    ...["-subj", "/CN=root", "-addext", "basicConstraints=critical,CA:TRUE"],
  );
  const root = readFileSync(at("ca.pem"), "utf8");
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  return {
    root,
    issue(service, namespace = "default") {
      const name = `${service}.${namespace}.${trustDomain}`;
      const uri = `spiffe://${trustDomain}/ns/${namespace}/sa/${service}`;
      openssl(
        folder,
        ...["req", "-new", ...NEW_KEY, "-keyout", "leaf.key", "-out", "leaf.csr", "-subj", "/"],
      );
      writeFileSync(
        at("leaf.ext"),
        `subjectAltName=critical,URI:${uri},DNS:${name},DNS:*.${name}\n` +
          "extendedKeyUsage=serverAuth,clientAuth\nkeyUsage=critical,digitalSignature\n",
      );
      openssl(
        folder,
        ...["x509", "-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "1"],
        ...["-CAcreateserial", "-extfile", "leaf.ext", "-out", "leaf.pem"],
      );
      const cert = readFileSync(at("leaf.pem"), "utf8");
      return { cert, key: readFileSync(at("leaf.key"), "utf8"), uri };
    },
    flawed(service, flaw) {
      const name = `${service}.default.${trustDomain}`;
      const uri = `spiffe://${trustDomain}/ns/default/sa/${service}`;
      const day = 86_400;
      const when = (seconds: number) =>
        new Date(Date.now() + seconds * 1000).toISOString().replace(/[-:T]|\.\d+/g, "");
      writeFileSync(at("index.txt"), "");
      writeFileSync(at("ca.conf"), CA_CONFIG);
      writeFileSync(
        at("odd.ext"),
        `subjectAltName=critical,${flaw.names ?? `URI:${uri},DNS:${name},DNS:*.${name}`}\n` +
          `extendedKeyUsage=${flaw.usage ?? "serverAuth,clientAuth"}\n` +
          `basicConstraints=critical,${flaw.basic ?? "CA:FALSE"}\n`,
      );
      openssl(
        folder,
        ...["req", "-new", ...NEW_KEY, "-keyout", "odd.key", "-out", "odd.csr", "-subj", "/CN=odd"],
      );
      openssl(
        folder,
        ...["ca", "-batch", "-config", "ca.conf", "-in", "odd.csr", "-out", "odd.pem", "-notext"],
        ...["-cert", "ca.pem", "-keyfile", "ca.key", "-extfile", "odd.ext"],
        ...["-startdate", when(flaw.from ?? -60), "-enddate", when(flaw.to ?? day)],
      );
      const cert = readFileSync(at("odd.pem"), "utf8");
      return { cert, key: readFileSync(at("odd.key"), "utf8"), uri };
    },
  };
}
