import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createPublicKey, generateKeyPairSync, X509Certificate } from "node:crypto";
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect, createServer } from "node:tls";
import { type Authority, openAuthority } from "./ca.ts";
import {
  certificateHash,
  pemCertificates,
  pemToDer,
  readCertificate,
  svidIdentity,
  verifyChain,
} from "./certificate.ts";
import { createSvidRequest, renewalTime } from "./svid.ts";

const DAY = 86_400_000;
const ID = "spiffe://weft.local/ns/default/sa/reviews";

let folder: string;
let authority: Authority;
let now = Date.now();

function openssl(args: readonly string[], input?: string) {
  const result = Bun.spawnSync(["openssl", ...args], {
    stdin: input === undefined ? "ignore" : Buffer.from(input),
    stderr: "pipe",
  });
  return { code: result.exitCode, out: result.stdout.toString(), err: result.stderr.toString() };
}

function leaf(ttlMs = DAY, csrPem = createSvidRequest().csrPem) {
  return authority.issue({
    csrPem,
    spiffeId: ID,
    dnsNames: ["reviews.default.weft.local", "*.reviews.default.weft.local"],
    ttlMs,
  });
}

async function failureOf(work: () => Promise<unknown>): Promise<string> {
  try {
    await work();
  } catch (error) {
    return error instanceof Error && "code" in error ? String(error.code) : String(error);
  }
  return "none";
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "weft-ca-"));
  authority = await openAuthority(folder, "weft.local", () => now);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("leaves", () => {
  test("openssl accepts the chain strictly, for both purposes and the names", async () => {
    const { chainPem } = await leaf();
    const file = join(folder, "chain.pem");
    writeFileSync(file, chainPem);
    const common = ["verify", "-x509_strict", "-CAfile", join(folder, "ca", "root.pem")];
    for (const more of [
      ["-purpose", "sslserver", "-verify_hostname", "p80.reviews.default.weft.local"],
      ["-purpose", "sslclient", "-verify_hostname", "reviews.default.weft.local"],
    ]) {
      const result = openssl([...common, ...more, "-untrusted", file, file]);
      expect(result.out + result.err).toContain("chain.pem: OK");
    }
    const wrong = ["-verify_hostname", "a.b.reviews.default.weft.local"];
    expect(openssl([...common, ...wrong, "-untrusted", file, file]).code).not.toBe(0);
  });

  test("they follow the SVID rules", async () => {
    const { chainPem, serial, notBefore, notAfter } = await leaf(3_600_000);
    const checked = verifyChain(chainPem, authority.bundle, now);
    if ("refused" in checked) throw new Error(checked.refused);
    expect(checked.id).toBe(ID);
    expect(checked.facts).toEqual({
      serial,
      notBefore,
      notAfter,
      uris: [ID],
      dnsNames: ["reviews.default.weft.local", "*.reviews.default.weft.local"],
      authority: false,
      keyUsage: 0x80,
    });
    expect(now - notBefore).toBeGreaterThanOrEqual(60_000);
    expect(Math.abs(notAfter - now - 3_600_000)).toBeLessThan(1_000);
    const text = openssl(["x509", "-noout", "-text"], chainPem).out;
    expect(text).toContain("Subject: \n");
    expect(text).toContain("X509v3 Subject Alternative Name: critical");
    expect(text).toContain("TLS Web Server Authentication, TLS Web Client Authentication");
  });

  test("two leaves make a mutual TLS 1.3 connection", async () => {
    const side = async () => {
      const { keyPem, csrPem } = createSvidRequest();
      const { chainPem } = await leaf(DAY, csrPem);
      return { key: keyPem, cert: chainPem, ca: [...authority.bundle] };
    };
    const common = { requestCert: true, rejectUnauthorized: true } as const;
    const server = createServer({ ...(await side()), ...common, minVersion: "TLSv1.3" }, (socket) =>
      socket.end(`${socket.getPeerCertificate().subjectaltname} ${socket.authorized}`),
    );
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    const address = server.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    const servername = "p80.reviews.default.weft.local";
    const client = connect({ port, host: "127.0.0.1", servername, ...(await side()) });
    let seen = "";
    for await (const chunk of client) seen += String(chunk);
    expect(seen).toContain(`URI:${ID}, DNS:reviews.default.weft.local`);
    expect(seen).toEndWith(" true");
    server.close();
  });

  test("addresses are written as bytes", async () => {
    const { chainPem } = await authority.issue({
      csrPem: createSvidRequest().csrPem,
      spiffeId: ID,
      dnsNames: [],
      ipAddresses: ["127.0.0.1", "::1", "2001:db8::a:0:1", "::ffff:1.2.3.4", "nonsense"],
      ttlMs: 30 * 365 * DAY,
    });
    const text = openssl(["x509", "-noout", "-text"], chainPem).out;
    expect(text).toContain("IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1, IP");
    expect(text).toContain("IP Address:2001:DB8:0:0:0:A:0:1\n");
  });

  test("names in the request are ignored", async () => {
    const key = join(folder, "other.key");
    openssl(["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key]);
    const request = openssl([
      ...["req", "-new", "-key", key, "-subj", "/CN=admin"],
      ...["-addext", "subjectAltName=URI:spiffe://weft.local/ns/default/sa/admin,DNS:evil"],
    ]);
    const { chainPem } = await leaf(DAY, request.out);
    const der = pemToDer(chainPem);
    const facts = der === undefined ? undefined : readCertificate(der);
    expect(facts?.uris).toEqual([ID]);
    expect(facts?.dnsNames).not.toContain("evil");
    expect(new X509Certificate(chainPem).subject ?? "").not.toContain("admin");
  });

  test("requests that are not a proven P-256 key are refused", async () => {
    const { csrPem } = createSvidRequest();
    const body = csrPem.split("\n").slice(1, -2).join("");
    const der = Buffer.from(body, "base64");
    der[der.length - 1] = (der.at(-1) ?? 0) ^ 1;
    const pem = (bytes: Buffer) =>
      `-----BEGIN CERTIFICATE REQUEST-----\n${bytes.toString("base64")}\n-----END CERTIFICATE REQUEST-----\n`;
    const foreign = (args: readonly string[]) => {
      const key = join(folder, "foreign.key");
      openssl([...args, "-out", key]);
      return openssl(["req", "-new", "-key", key, "-subj", "/"]).out;
    };
    const refused = [
      "",
      "hello",
      pem(Buffer.alloc(0)),
      pem(Buffer.from([0x30, 0x80])),
      pem(der),
      pem(der.subarray(0, 60)),
      foreign(["genrsa", "2048"]),
      foreign(["ecparam", "-name", "secp384r1", "-genkey", "-noout"]),
      foreign(["genpkey", "-algorithm", "ed25519"]),
      csrPem + "x".repeat(9000),
    ];
    for (const csr of refused) expect(await failureOf(() => leaf(DAY, csr))).toBe("csr_invalid");
  });

  test("a hundred serials are all different", async () => {
    const csr = createSvidRequest().csrPem;
    const serials = new Set<string>();
    for (let turn = 0; turn < 100; turn++) serials.add((await leaf(DAY, csr)).serial);
    expect(serials.size).toBe(100);
  });
});

describe("chains that are refused", () => {
  const refusal = (chain: string, roots: readonly string[], at = now) => {
    const result = verifyChain(chain, roots, at);
    return "refused" in result ? result.refused : "accepted";
  };

  test("other root, missing issuer, wrong time, no certificate", async () => {
    const other = mkdtempSync(join(tmpdir(), "weft-ca-"));
    const stranger = await openAuthority(other, "weft.local", () => now);
    rmSync(other, { recursive: true });
    const { chainPem } = await leaf(60_000);
    const [first = "", second = ""] = pemCertificates(chainPem);
    expect(refusal(chainPem, authority.bundle)).toBe("accepted");
    expect(refusal(chainPem, stranger.bundle)).toBe("the chain does not end at a trusted root");
    expect(refusal(first, authority.bundle)).toBe("the chain does not end at a trusted root");
    expect(refusal(second + first, authority.bundle)).toContain("names a trust domain");
    expect(refusal(chainPem, authority.bundle, now + 120_000)).toBe("the certificate has expired");
    expect(refusal(chainPem, authority.bundle, now - DAY)).toBe("the certificate is not valid yet");
    expect(refusal("", authority.bundle)).toBe("there is no certificate");
    const foreign = pemCertificates(stranger.bundle[0] ?? "")[0] ?? "";
    expect(refusal(first + foreign, stranger.bundle)).toBe("the chain is broken");
  });

  /** A self-signed certificate with these extensions, made by openssl. */
  function made(extensions: readonly string[]): Buffer {
    const key = join(folder, "made.key");
    openssl(["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key]);
    const config = join(folder, "made.cnf");
    writeFileSync(
      config,
      `[req]\ndistinguished_name=dn\nprompt=no\nx509_extensions=x\n[dn]\nCN=x\n[x]\n${extensions.join("\n")}\n`,
    );
    const result = openssl(["req", "-x509", "-new", "-key", key, "-days", "1", "-config", config]);
    const der = pemToDer(result.out);
    if (der === undefined) throw new Error(result.err);
    return der;
  }

  test.each([
    [["keyUsage=digitalSignature"], "no URI name"],
    [
      [`subjectAltName=URI:${ID},URI:${ID}2`, "keyUsage=digitalSignature"],
      "more than one URI name",
    ],
    [["subjectAltName=URI:https://weft.local/x", "keyUsage=digitalSignature"], "not a SPIFFE ID"],
    [["subjectAltName=URI:spiffe://weft.local", "keyUsage=digitalSignature"], "not a workload"],
    [["subjectAltName=DNS:reviews.default.weft.local", "keyUsage=digitalSignature"], "no URI name"],
    [[`subjectAltName=URI:${ID}`], "lacks digitalSignature"],
    [[`subjectAltName=URI:${ID}`, "keyUsage=keyEncipherment"], "lacks digitalSignature"],
    [[`subjectAltName=URI:${ID}`, "keyUsage=digitalSignature,keyCertSign"], "allows signing"],
    [[`subjectAltName=URI:${ID}`, "keyUsage=digitalSignature,cRLSign"], "allows signing"],
    [
      [
        `subjectAltName=URI:${ID}`,
        "keyUsage=digitalSignature",
        "basicConstraints=critical,CA:true",
      ],
      "must not be an authority",
    ],
  ])("%j: %s", (extensions, why) => {
    const result = svidIdentity(made(extensions));
    expect("refused" in result ? result.refused : "accepted").toContain(why);
  });

  test("a name with a NUL makes the certificate malformed", () => {
    const der = made([`subjectAltName=URI:${ID}`, "keyUsage=digitalSignature"]);
    expect(readCertificate(der)).toBeDefined();
    der[der.indexOf("weft.local")] = 0;
    expect(readCertificate(der)).toBeUndefined();
  });

  test("no cut or flipped byte throws", () => {
    const der = made([`subjectAltName=URI:${ID}`, "keyUsage=digitalSignature"]);
    for (let at = 0; at < der.length; at++) {
      readCertificate(Buffer.from(der.subarray(0, at)));
      const flipped = Buffer.from(der);
      flipped[at] = (flipped[at] ?? 0) ^ 0x80;
      svidIdentity(flipped);
    }
  });
});

describe("files", () => {
  test("a restart finds the same root and goes on", async () => {
    const again = await openAuthority(folder, "weft.local", () => now);
    expect(again.rootHashes).toEqual(authority.rootHashes);
    const root = readFileSync(join(folder, "ca", "root.pem"), "utf8");
    expect([certificateHash(root)]).toEqual([...authority.rootHashes]);
    expect(statSync(join(folder, "keys", "ca.key")).mode & 0o777).toBe(0o600);
  });

  test("exposed, damaged or foreign files stop the start with a reason", async () => {
    const copy = mkdtempSync(join(tmpdir(), "weft-ca-"));
    const path = join(copy, "keys", "ca.key");
    const open = (trustDomain = "weft.local") => openAuthority(copy, trustDomain, () => now);
    await open();
    const whole = readFileSync(path, "utf8");
    expect(await failureOf(() => open("other.local"))).toBe("trust_domain_changed");
    chmodSync(path, 0o640);
    expect(await failureOf(open)).toBe("secret_exposed");
    chmodSync(path, 0o600);
    for (const [text, code] of [
      ["", "secret_empty"],
      ["garbage", "ca_corrupt"],
      [whole.slice(0, whole.length / 2), "ca_corrupt"],
      [whole.replace(/[A-Za-z]{6}/, "AAAAAA"), "ca_corrupt"],
    ] as const) {
      writeFileSync(path, text);
      expect(await failureOf(open)).toBe(code);
    }
    const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const other = privateKey.export({ format: "pem", type: "pkcs8" }).toString();
    const block = /-----BEGIN PRIVATE KEY-----[^-]+-----END PRIVATE KEY-----\n/;
    writeFileSync(path, whole.replace(block, other));
    expect(await failureOf(open)).toBe("ca_corrupt");
    writeFileSync(path, whole);
    expect(await failureOf(open)).toBe("none");
    rmSync(copy, { recursive: true });
  });

  test("an ageing intermediate is replaced, old leaves stay valid", async () => {
    const before = await leaf(DAY);
    const start = now;
    now += 300 * DAY;
    const after = await leaf(DAY);
    const issuerOf = (chain: string) => pemCertificates(chain)[1];
    expect(issuerOf(after.chainPem)).not.toBe(issuerOf(before.chainPem));
    expect("refused" in verifyChain(after.chainPem, authority.bundle, now)).toBe(false);
    expect("refused" in verifyChain(before.chainPem, authority.bundle, start)).toBe(false);
    now = start;
  });
});

test("renewal falls around half of the lifetime", () => {
  expect(renewalTime(0, 1_000, 0)).toBe(450);
  expect(renewalTime(0, 1_000, 0.5)).toBe(500);
  expect(renewalTime(1_000, 2_000, 0.999)).toBe(1_550);
});

test("the private key of a request stays out of it", () => {
  const { keyPem, csrPem } = createSvidRequest();
  const jwk = createPublicKey(keyPem).export({ format: "jwk" });
  expect(jwk.crv).toBe("P-256");
  expect(csrPem).not.toContain("PRIVATE");
});
