import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ServiceResource } from "../config/resource.ts";
import { openAuthority } from "../identity/ca.ts";
import { pemToDer, readCertificate, svidIdentity, verifyChain } from "../identity/certificate.ts";
import { openNatsAuthority } from "../identity/nats-auth.ts";
import { createNkey } from "../identity/nkey.ts";
import { createSvidRequest } from "../identity/svid.ts";
import { createToken, formatToken, secretHash } from "../identity/token.ts";
import { brokenAudit, listAudit } from "../store/audit.ts";
import { certificatesOf } from "../store/certificates.ts";
import { putRevision } from "../store/revisions.ts";
import type { TokenRow } from "../store/rows.ts";
import { openStore, type Store } from "../store/store.ts";
import { putToken, revokeToken, token as tokenRow } from "../store/tokens.ts";
import { grantsOfInstance, workload } from "../store/workloads.ts";
import { createIssuer, type Issuer, type JoinRequest } from "./issue.ts";
import { issueOwnSvid, ownBusCredentials } from "./own-identity.ts";

const HOUR = 3_600_000;
const ROOT = "ab".repeat(32);

let folder: string;
let store: Store;
let issuer: Issuer;
let now: number;
let bundle: readonly string[];

async function fixture() {
  folder = mkdtempSync(join(tmpdir(), "weft-issue-"));
  now = Date.now();
  store = openStore(join(folder, "weft.db"));
  const authority = await openAuthority(folder, "weft.local", () => now);
  const nats = openNatsAuthority(join(folder, "keys", "nats.seed"));
  bundle = authority.bundle;
  issuer = createIssuer({
    store,
    authority,
    nats,
    configKeys: () => [{ kid: "k1", key: "abc" }],
    natsUrl: "tls://0.0.0.0:17222",
    svidTtlMs: HOUR,
    now: () => now,
  });
  return { authority, nats };
}

beforeEach(async () => {
  await fixture();
});
afterEach(() => {
  store.close();
  rmSync(folder, { recursive: true, force: true });
});

function makeToken(row: Partial<TokenRow> = {}): string {
  const token = createToken("https://cp:17010", [ROOT], 0);
  putToken(store, {
    id: token.id,
    kind: "join",
    secretHash: secretHash(token.secret),
    scope: {},
    description: "",
    createdBy: "test",
    createdAt: now,
    expiresAt: null,
    once: false,
    usedAt: null,
    revokedAt: null,
    ...row,
  });
  return formatToken(token);
}

function request(token: string, more: Partial<JoinRequest> = {}): JoinRequest {
  return {
    token,
    csr: createSvidRequest().csrPem,
    natsKey: createNkey("user").publicKey,
    service: "cart",
    namespace: "shop",
    serviceAccount: "cart",
    ...more,
  };
}

function addService(namespace: string, name: string, visibility?: readonly string[]): void {
  const resource = {
    apiVersion: "weft.dev/v1",
    kind: "Service",
    metadata: { name, namespace, labels: {} },
    spec: { ports: [{ port: 80 }], ...(visibility && { visibility: [...visibility] }) },
  } as ServiceResource;
  putRevision(store, {
    author: "test",
    message: "",
    t: now,
    changes: [{ key: `Service/${namespace}/${name}`, op: "create", after: resource }],
  });
}

function rightsOf(jwt: string): {
  readonly pub: readonly string[];
  readonly sub: readonly string[];
} {
  const { nats } = JSON.parse(Buffer.from(jwt.split(".")[1] ?? "", "base64url").toString());
  return { pub: nats.pub.allow, sub: nats.sub.allow };
}

async function codeOf(work: () => unknown): Promise<string> {
  try {
    await work();
    return "none";
  } catch (error) {
    if (error instanceof Error && "code" in error && "status" in error) {
      return `${error.status} ${error.code}`;
    }
    return String(error);
  }
}

describe("join", () => {
  test("gives a certificate, the bundle, the bus and its rights", async () => {
    const reply = await issuer.join(
      request(makeToken(), { upstreams: [{ namespace: "shop", service: "db" }] }),
      { host: "cp.example" },
    );
    const checked = verifyChain(reply.chain, bundle, now);
    if ("refused" in checked) throw new Error(checked.refused);
    expect(checked.id).toBe("spiffe://weft.local/ns/shop/sa/cart");
    expect(checked.facts.dnsNames).toEqual(["cart.shop.weft.local", "*.cart.shop.weft.local"]);
    expect(reply.natsUrl).toBe("tls://cp.example:17222");
    expect(reply.configKeys).toEqual([{ kid: "k1", key: "abc" }]);
    expect(reply.trustDomain).toBe("weft.local");
    expect(reply.instance).toMatch(/^[a-z2-7]{10}$/);
    expect(reply.keys).toEqual(["eps.shop.db.*", "out.shop.db"]);
    expect(rightsOf(reply.natsJwt).sub).toEqual([
      "$KV.weft-config.head",
      "$KV.weft-config.mesh",
      "$KV.weft-config.ns.shop",
      "$KV.weft-config.in.shop.cart",
      "$KV.weft-config.eps.shop.db.*",
      "$KV.weft-config.out.shop.db",
      `_INBOX_shop.cart.${reply.instance}.>`,
    ]);
    expect(rightsOf(reply.natsJwt).pub).toContain(`weft.rpc.register.shop.cart.${reply.instance}`);
    expect(workload(store, reply.instance)?.identity).toBe(checked.id);
    expect(certificatesOf(store, reply.instance).map((row) => row.serial)).toEqual([
      checked.facts.serial,
    ]);
    expect(listAudit(store).map(({ action, subject }) => [action, subject])).toEqual([
      ["join", `shop.cart.${reply.instance}`],
    ]);
    expect(brokenAudit(store)).toBeUndefined();
  });

  test("a one-time token works once, also when two race, and not for a bad request", async () => {
    const token = makeToken({ once: true });
    expect(await codeOf(() => issuer.join(request(token, { csr: "bad" })))).toBe("400 csr_invalid");
    const codes = await Promise.all([1, 2, 3].map(() => codeOf(() => issuer.join(request(token)))));
    expect(codes.sort()).toEqual(["401 token_used", "401 token_used", "none"]);
    expect(await codeOf(() => issuer.join(request(token)))).toBe("401 token_used");
  });

  test("tokens that are wrong, expired, revoked, or of another kind", async () => {
    const join = (token: string) => codeOf(() => issuer.join(request(token)));
    expect(await join("")).toBe("401 token_invalid");
    expect(await join(formatToken(createToken("https://cp", [ROOT], 0)))).toBe("401 token_invalid");
    const good = makeToken();
    const parts = JSON.parse(Buffer.from(good.slice(5), "base64url").toString());
    expect(await join(formatToken({ ...parts, secret: "guess" }))).toBe("401 token_invalid");
    expect(await join(makeToken({ expiresAt: now }))).toBe("401 token_expired");
    expect(await join(makeToken({ kind: "admin" }))).toBe("403 token_kind");
    revokeToken(store, parts.id, now);
    expect(await join(good)).toBe("401 token_revoked");
    expect(tokenRow(store, parts.id)?.usedAt).toBeNull();
  });

  test("a token's scope binds namespace, service and account", async () => {
    const token = makeToken({ scope: { namespace: "shop", services: ["cart", "db"] } });
    const join = (more: Partial<JoinRequest>) => codeOf(() => issuer.join(request(token, more)));
    expect(await join({})).toBe("none");
    expect(await join({ service: "db", serviceAccount: "db" })).toBe("none");
    expect(await join({ namespace: "bank" })).toBe("403 token_scope");
    expect(await join({ service: "admin" })).toBe("403 token_scope");
    expect(await join({ serviceAccount: "admin" })).toBe("403 token_scope");
  });

  test("names are checked, and nobody joins as the control plane", async () => {
    const token = makeToken();
    const join = (more: Partial<JoinRequest>) => codeOf(() => issuer.join(request(token, more)));
    for (const name of ["", "Cart", "a.b", "a/b", "*", "a".repeat(64), "-a", "a\n"]) {
      expect(await join({ service: name })).toBe("400 name_invalid");
      expect(await join({ namespace: name })).toBe("400 name_invalid");
      expect(await join({ serviceAccount: name })).toBe("400 name_invalid");
      const upstreams = [{ namespace: "shop", service: name }];
      expect(await join({ upstreams })).toBe("400 name_invalid");
    }
    expect(await join({ namespace: "weft-system", serviceAccount: "controlplane" })).toBe(
      "403 namespace_reserved",
    );
    expect(await join({ natsKey: createNkey("account").publicKey })).toBe("400 nats_key_invalid");
    const many = Array.from({ length: 501 }, () => ({ namespace: "a", service: "b" }));
    expect(await join({ upstreams: many })).toBe("400 too_many_upstreams");
  });

  test("an instance id is kept by the same identity only", async () => {
    const token = makeToken();
    const first = await issuer.join(request(token));
    const again = await issuer.join(request(token, { instance: first.instance }));
    expect(again.instance).toBe(first.instance);
    const other = await issuer.join(
      request(token, { service: "db", serviceAccount: "db", instance: first.instance }),
    );
    expect(other.instance).not.toBe(first.instance);
    const unknown = await issuer.join(request(token, { instance: "zzzzzzzzzz" }));
    expect(unknown.instance).not.toBe("zzzzzzzzzz");
  });

  test("declared services that are not visible are left out and named", async () => {
    addService("bank", "vault", ["bank"]);
    addService("bank", "rates", ["shop"]);
    const upstreams = [
      { namespace: "bank", service: "vault" },
      { namespace: "bank", service: "rates" },
    ];
    const reply = await issuer.join(request(makeToken(), { upstreams }));
    expect(reply.keys).toEqual(["eps.bank.rates.*", "out.bank.rates"]);
    expect(reply.refused).toEqual([{ namespace: "bank", service: "vault", reason: "not_visible" }]);
  });
});

describe("renew", () => {
  test("a new certificate and JWT for the same instance and grants", async () => {
    const upstreams = [{ namespace: "shop", service: "db" }];
    const joined = await issuer.join(request(makeToken(), { upstreams }));
    now += HOUR / 2;
    const peer = "spiffe://weft.local/ns/shop/sa/cart";
    const { csr, natsKey } = request("");
    const renewed = await issuer.renew(peer, { instance: joined.instance, csr, natsKey });
    expect(renewed.instance).toBe(joined.instance);
    expect(renewed.keys).toEqual(joined.keys);
    expect(renewed.expiresAt - joined.expiresAt).toBeGreaterThan(HOUR / 2 - 2_000);
    const der = pemToDer(renewed.chain) ?? Buffer.alloc(0);
    expect(svidIdentity(der)).toMatchObject({ id: peer });
    expect(readCertificate(der)?.serial).not.toBe(
      readCertificate(pemToDer(joined.chain) ?? Buffer.alloc(0))?.serial ?? "",
    );
    expect(certificatesOf(store, joined.instance).length).toBe(2);
  });

  test("only with the certificate of that instance", async () => {
    const { instance } = await issuer.join(request(makeToken()));
    const { csr, natsKey } = request("");
    const renew = (peer: string, id = instance) =>
      codeOf(() => issuer.renew(peer, { instance: id, csr, natsKey }));
    expect(await renew("spiffe://weft.local/ns/shop/sa/db")).toBe("403 identity_mismatch");
    expect(await renew("spiffe://other/ns/shop/sa/cart")).toBe("401 identity_invalid");
    expect(await renew("")).toBe("401 identity_invalid");
    expect(await renew("spiffe://weft.local/ns/shop/sa/cart", "aaaaaaaaaa")).toBe(
      "404 instance_unknown",
    );
    expect(await renew("spiffe://weft.local/ns/shop/sa/cart")).toBe("none");
  });
});

describe("access", () => {
  const peer = "spiffe://weft.local/ns/shop/sa/cart";

  test("grants a visible service once, audited, and refuses the rest", async () => {
    const { instance } = await issuer.join(request(makeToken()));
    const { natsKey } = request("");
    const access = (namespace: string, service: string) =>
      issuer.access(peer, { instance, natsKey, namespace, service });
    expect(await codeOf(() => access("shop", "nowhere"))).toBe("404 service_unknown");
    addService("shop", "db", ["bank"]);
    addService("bank", "vault", ["audit"]);
    addService("bank", "open", ["*"]);
    expect(access("shop", "db").keys).toEqual(["eps.shop.db.*", "out.shop.db"]);
    const reply = access("bank", "open");
    expect(reply.keys).toEqual([
      "eps.bank.open.*",
      "eps.shop.db.*",
      "out.bank.open",
      "out.shop.db",
    ]);
    expect(rightsOf(reply.natsJwt).sub).toContain("$KV.weft-config.out.bank.open");
    access("bank", "open");
    expect(await codeOf(() => access("bank", "vault"))).toBe("403 service_not_visible");
    expect(grantsOfInstance(store, instance).length).toBe(2);
    expect(listAudit(store).map(({ action }) => action)).toEqual([
      "join",
      "access.granted",
      "access.granted",
      "access.refused",
    ]);
  });

  test("a service that is hidden later drops out of the next JWT", async () => {
    const upstreams = [{ namespace: "bank", service: "open" }];
    const joined = await issuer.join(request(makeToken(), { upstreams }));
    expect(joined.keys.length).toBe(2);
    addService("bank", "open", ["bank"]);
    const { csr, natsKey } = request("");
    const renewed = await issuer.renew(peer, { instance: joined.instance, csr, natsKey });
    expect(renewed.keys).toEqual([]);
  });

  test("not for another's instance", async () => {
    const { instance } = await issuer.join(request(makeToken()));
    const { natsKey } = request("");
    const steal = () =>
      issuer.access("spiffe://weft.local/ns/shop/sa/db", {
        instance,
        natsKey,
        namespace: "shop",
        service: "db",
      });
    expect(await codeOf(steal)).toBe("403 identity_mismatch");
  });
});

test("the control plane's own certificate and credentials", async () => {
  const { authority, nats } = await fixture();
  const svid = await issueOwnSvid(
    authority,
    { hostnames: ["Box.example", "not a name"], addresses: ["192.0.2.7"] },
    HOUR,
  );
  const checked = verifyChain(svid.chainPem, authority.bundle, now);
  if ("refused" in checked) throw new Error(checked.refused);
  expect(checked.id).toBe("spiffe://weft.local/ns/weft-system/sa/controlplane");
  expect(checked.facts.dnsNames).toEqual(["controlplane.weft", "localhost", "box.example"]);
  const credentials = ownBusCredentials(nats, () => now);
  expect(rightsOf(credentials().jwt)).toEqual({ pub: undefined, sub: undefined } as never);
});

test("an instance that renews or asks without pause is held off, others are not", async () => {
  const cart = await issuer.join(request(makeToken()));
  const peer = "spiffe://weft.local/ns/shop/sa/cart";
  const natsKey = createNkey("user").publicKey;
  const renew = (instance: string) =>
    codeOf(() => issuer.renew(peer, { instance, csr: createSvidRequest().csrPem, natsKey }));
  const codes: string[] = [];
  for (let i = 0; i < 32; i++) codes.push(await renew(cart.instance));
  expect(codes.filter((code) => code === "none")).toHaveLength(30);
  expect(codes.at(-1)).toBe("429 too_often");
  const other = await issuer.join(request(makeToken()));
  expect(await renew(other.instance)).toBe("none");
  now += 10_000;
  expect(await renew(cart.instance)).toBe("none");
  now -= 3_600_000;
  expect(await renew(cart.instance)).toBe("none");
  now += 3_600_000;
});
