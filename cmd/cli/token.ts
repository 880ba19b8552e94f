/** `weft token`: what proxies join with, and people call the API with. */
import type { CreatedToken, TokenAnswer } from "../../src/api/answers.ts";
import { EXIT } from "../../src/error.ts";
import { readDuration, readName, usage } from "../grammar.ts";
import { getAll } from "./client.ts";
import { printListing } from "./list.ts";
import type { Session, Typed } from "./session.ts";
import { age, type Column } from "./table.ts";
import { LIST_FORMATS, typedFormat, typedText, typedTexts, typedToggle } from "./typed.ts";

export async function createToken(session: Session, typed: Typed): Promise<number> {
  const services = typedTexts(typed, "service").map((name) => readName(name, "--service"));
  const once = typedToggle(typed, "once");
  const ttl = typedText(typed, "ttl") ?? (once ? "1h" : "24h");
  const cidr = typedText(typed, "cidr");
  const description = typedText(typed, "description");
  const namespace = session.settings.namespace;
  const admin = typedToggle(typed, "admin");
  if (admin && (once || services.length > 0 || cidr !== undefined)) {
    const why = "an admin token is good for the whole API: --admin takes only --ttl";
    throw usage(why, "weft token create --admin --ttl 8h");
  }
  const client = await session.client();
  const created = await client.post<CreatedToken>("/v1/tokens", {
    kind: admin ? "admin" : "join",
    once,
    ttlMs: readDuration(ttl, "--ttl"),
    ...(services.length === 0 ? {} : { services }),
    ...(admin || (services.length === 0 && namespace === undefined)
      ? {}
      : { namespace: session.namespace }),
    ...(cidr === undefined ? {} : { cidr }),
    ...(description === undefined ? {} : { description }),
  });
  session.terminal.out(`${created.token}\n`);
  session.terminal.err(`token ${created.id}, ${scopeOf(created)}, ${until(created)}\n`);
  return EXIT.ok;
}

export async function listTokens(session: Session, typed: Typed): Promise<number> {
  const format = typedFormat(typed, LIST_FORMATS);
  const tokens = await getAll<TokenAnswer>(await session.client(), "/v1/tokens");
  printListing(
    session.terminal,
    {
      columns: columns(session.terminal.now()),
      rows: tokens,
      nameOf: ({ id }) => id,
      value: tokens,
      empty: "no tokens; weft token create makes one",
    },
    format,
  );
  return EXIT.ok;
}

export async function revokeToken(session: Session, args: readonly string[]): Promise<number> {
  const id = args[0] ?? "";
  await (await session.client()).remove(`/v1/tokens/${encodeURIComponent(id)}`);
  session.terminal.out(`${id} revoked\n`);
  return EXIT.ok;
}

function columns(now: number): readonly Column<TokenAnswer>[] {
  return [
    { title: "ID", text: ({ id }) => id },
    { title: "KIND", text: ({ kind }) => kind },
    { title: "FOR", text: scopeOf },
    { title: "STATE", text: (token) => stateOf(token, now) },
    { title: "AGE", text: ({ createdAt }) => age(now - createdAt), align: "right" },
    { title: "CREATED BY", text: ({ createdBy }) => createdBy, wide: true },
    { title: "DESCRIPTION", text: ({ description }) => description, wide: true },
  ];
}

function scopeOf({ kind, scope }: TokenAnswer): string {
  if (kind === "admin") return "the API";
  const namespace = scope.namespace ?? "any namespace";
  return scope.services === undefined
    ? `any service in ${namespace}`
    : scope.services.map((service) => `${namespace}/${service}`).join(",");
}

function stateOf(token: TokenAnswer, now: number): string {
  if (token.revokedAt !== null) return "revoked";
  if (token.expiresAt !== null && token.expiresAt <= now) return "expired";
  if (token.once && token.usedAt !== null) return "used";
  return token.expiresAt === null ? "valid" : `valid ${age(token.expiresAt - now)}`;
}

function until(token: TokenAnswer): string {
  const once = token.once ? "once, " : "";
  if (token.expiresAt === null) return `${once}without end`;
  return `${once}until ${new Date(token.expiresAt).toISOString()}`;
}
