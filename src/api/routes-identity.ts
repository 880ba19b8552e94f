/** Tokens, and how workloads get and renew their identity. */
import { isName } from "../identity/spiffe.ts";
import { createToken, formatToken, secretHash } from "../identity/token.ts";
import { parseRange } from "../std/address-range.ts";
import { appendAudit } from "../store/audit.ts";
import type { TokenRow } from "../store/rows.ts";
import { listTokens, putToken, revokeToken } from "../store/tokens.ts";
import type { CreatedToken, TokenAnswer, TrustBundleAnswer } from "./answers.ts";
import { flagOf, integerOf, recordsOf, requiredText, shortText, textOf, textsOf } from "./body.ts";
import { pageOf, pageRequest } from "./page.ts";
import { refusal } from "./problem.ts";
import type { Call, Route } from "./route.ts";

const DAY_MS = 86_400_000;
/** A token that is forgotten in a script should not open the mesh a year later. */
const TTL_MS = DAY_MS;
const TTL_MS_MAX = 365 * DAY_MS;

function tokenAnswer(row: TokenRow): TokenAnswer {
  const { secretHash: _, ...shown } = row;
  return shown;
}

function scopeOf({ body }: Call): TokenRow["scope"] {
  const namespace = textOf(body, "namespace");
  const services = textsOf(body, "services");
  const cidr = textOf(body, "cidr");
  for (const name of [...(namespace === undefined ? [] : [namespace]), ...(services ?? [])]) {
    if (isName(name)) continue;
    const fix = "use at most 63 lower-case letters, digits and inner dashes";
    throw refusal(400, "name_invalid", `${JSON.stringify(name)} is not a name`, fix);
  }
  if (services?.length === 0) {
    throw refusal(400, "invalid_value", "services is empty", "name one, or leave it out for any");
  }
  if (cidr !== undefined && (!cidr.includes("/") || parseRange(cidr) === undefined)) {
    throw refusal(400, "cidr_invalid", `${cidr} is not a range`, "write it like 10.0.0.0/8");
  }
  return {
    ...(namespace === undefined ? {} : { namespace }),
    ...(services === undefined ? {} : { services }),
    ...(cidr === undefined ? {} : { cidr }),
  };
}

function create(call: Call): CreatedToken {
  const { parts, body, actor } = call;
  const kind = textOf(body, "kind") ?? "join";
  if (kind !== "join" && kind !== "admin") {
    throw refusal(400, "invalid_value", `kind is ${kind}`, "use join or admin");
  }
  const limited = ["namespace", "services", "cidr"].filter((name) => body[name] !== undefined);
  if (flagOf(body, "once")) limited.push("once");
  if (kind === "admin" && limited.length > 0) {
    const message = `an admin token cannot be limited by ${limited.join(", ")}`;
    throw refusal(400, "invalid_value", message, "leave that out, or create a join token");
  }
  const ttlMs = integerOf(body, "ttlMs") ?? TTL_MS;
  if (ttlMs <= 0 || ttlMs > TTL_MS_MAX) {
    throw refusal(400, "invalid_value", `ttlMs is ${ttlMs}`, "give 1 ms up to 365 days");
  }
  const t = parts.now();
  const token = createToken(parts.url, parts.rootHashes, t + ttlMs);
  const row: TokenRow = {
    id: token.id,
    kind,
    secretHash: secretHash(token.secret),
    scope: scopeOf(call),
    description: shortText(body, "description") ?? "",
    createdBy: actor,
    createdAt: t,
    expiresAt: token.exp,
    once: flagOf(body, "once"),
    usedAt: null,
    revokedAt: null,
  };
  parts.store.write(() => {
    putToken(parts.store, row);
    const detail = { kind, scope: row.scope, once: row.once, expiresAt: row.expiresAt };
    appendAudit(parts.store, { t, actor, action: "token.create", subject: row.id, detail });
  });
  return { ...tokenAnswer(row), token: formatToken(token) };
}

function revoke(call: Call): undefined {
  const { parts, actor } = call;
  const id = call.param("id");
  const t = parts.now();
  parts.store.write(() => {
    if (!revokeToken(parts.store, id, t)) {
      const fix = "list them: weft token list";
      throw refusal(404, "not_found", `there is no usable token ${id}`, fix);
    }
    appendAudit(parts.store, { t, actor, action: "token.revoke", subject: id });
  });
}

/** Registrations are believed about an address only when the API saw it. */
async function seen<T extends { readonly instance: string }>(
  call: Call,
  reply: Promise<T>,
): Promise<T> {
  const answer = await reply;
  call.parts.registry.noteSource(answer.instance, call.env.remoteAddress);
  return answer;
}

async function join(call: Call) {
  const { body, parts } = call;
  const instance = textOf(body, "instance");
  const request = {
    // The one that was checked, not one that the body may name.
    token: call.token,
    csr: requiredText(body, "csr"),
    natsKey: requiredText(body, "natsKey"),
    service: requiredText(body, "service"),
    namespace: textOf(body, "namespace") ?? "default",
    serviceAccount: textOf(body, "serviceAccount") ?? requiredText(body, "service"),
    upstreams: recordsOf(body, "upstreams", ["namespace", "service"]),
    ...(instance === undefined ? {} : { instance }),
  };
  return seen(call, parts.issuer.join(request, { host: call.host }));
}

async function renew(call: Call) {
  const { body, parts } = call;
  const request = {
    instance: requiredText(body, "instance"),
    csr: requiredText(body, "csr"),
    natsKey: requiredText(body, "natsKey"),
  };
  return seen(call, parts.issuer.renew(call.actor, request, { host: call.host }));
}

function access(call: Call) {
  const { body, parts } = call;
  const instance = requiredText(body, "instance");
  const reply = parts.issuer.access(call.actor, {
    instance,
    natsKey: requiredText(body, "natsKey"),
    service: requiredText(body, "service"),
    namespace: textOf(body, "namespace") ?? "default",
  });
  parts.registry.noteSource(instance, call.env.remoteAddress);
  return reply;
}

export const IDENTITY_ROUTES: readonly Route[] = [
  {
    method: "GET",
    path: "/v1/trust-bundle",
    access: "open",
    summary: "The mesh's root certificates; compare their hash with the one in a token",
    handle: ({ parts }): TrustBundleAnswer => ({
      trustDomain: parts.trustDomain,
      bundle: parts.bundle,
    }),
  },
  {
    method: "POST",
    path: "/v1/join",
    access: "join",
    summary: "Get an identity with a join token",
    body: {
      csr: "string",
      natsKey: "string",
      service: "string",
      namespace: "string?",
      serviceAccount: "string?",
      upstreams: "objects?",
      instance: "string?",
    },
    handle: join,
  },
  {
    method: "POST",
    path: "/v1/svid",
    access: "peer",
    summary: "Renew a certificate with the current one",
    body: { instance: "string", csr: "string", natsKey: "string" },
    handle: renew,
  },
  {
    method: "POST",
    path: "/v1/access",
    access: "peer",
    summary: "Get the right to read a service that was not declared",
    body: { instance: "string", natsKey: "string", service: "string", namespace: "string?" },
    handle: access,
  },
  {
    method: "POST",
    path: "/v1/tokens",
    access: "admin",
    summary: "Create a token; its text is in this answer only",
    body: {
      kind: "string?",
      namespace: "string?",
      services: "strings?",
      cidr: "string?",
      ttlMs: "integer?",
      once: "boolean?",
      description: "string?",
    },
    status: 201,
    handle: create,
  },
  {
    method: "GET",
    path: "/v1/tokens",
    access: "admin",
    summary: "List tokens, without their secrets",
    query: { cursor: "string", limit: "integer" },
    handle: (call) => {
      const { after, limit } = pageRequest(call);
      const found = listTokens(call.parts.store, after, limit + 1);
      return pageOf(found, limit, (row) => row.id, tokenAnswer);
    },
  },
  {
    method: "DELETE",
    path: "/v1/tokens/{id}",
    access: "admin",
    summary: "Make a token unusable from now on",
    status: 204,
    handle: revoke,
  },
];
