/** The tables as Drizzle sees them; the SQL that creates them is in the numbered files. */
import { integer, primaryKey, sqliteTable, text } from "drizzle-orm/sqlite-core";
import type { Change, TokenScope } from "./rows.ts";

export const settings = sqliteTable("settings", {
  key: text("key").primaryKey(),
  value: text("value").notNull(),
});

export const resources = sqliteTable("resources", {
  key: text("key").primaryKey(),
  kind: text("kind").notNull(),
  namespace: text("namespace").notNull(),
  name: text("name").notNull(),
  body: text("body").notNull(),
  sha256: text("sha256").notNull(),
  origin: text("origin", { enum: ["document", "registration"] }).notNull(),
  created: integer("created").notNull(),
  revision: integer("revision").notNull(),
  t: integer("t").notNull(),
});

export const revisions = sqliteTable("revisions", {
  number: integer("number").primaryKey(),
  hash: text("hash").notNull(),
  author: text("author").notNull(),
  message: text("message").notNull(),
  t: integer("t").notNull(),
  changes: text("changes", { mode: "json" }).$type<readonly Change[]>().notNull(),
  busRev: integer("bus_rev"),
});

export const documents = sqliteTable("documents", {
  key: text("key").primaryKey(),
  op: text("op", { enum: ["put", "del"] }).notNull(),
  epoch: integer("epoch").notNull(),
  rev: integer("rev").notNull(),
  t: integer("t").notNull(),
  sha256: text("sha256").notNull(),
  body: text("body").notNull(),
});

export const workloads = sqliteTable("workloads", {
  instance: text("instance").primaryKey(),
  namespace: text("namespace").notNull(),
  service: text("service").notNull(),
  serviceAccount: text("service_account").notNull(),
  identity: text("identity").notNull(),
  tokenId: text("token_id").notNull(),
  joinedAt: integer("joined_at").notNull(),
  boot: text("boot"),
  shard: integer("shard"),
  registration: text("registration"),
  registeredAt: integer("registered_at"),
  lastSeen: integer("last_seen"),
});

export const grants = sqliteTable(
  "grants",
  {
    instance: text("instance").notNull(),
    namespace: text("namespace").notNull(),
    service: text("service").notNull(),
    t: integer("t").notNull(),
  },
  (table) => [primaryKey({ columns: [table.instance, table.namespace, table.service] })],
);

export const certificates = sqliteTable("certificates", {
  serial: text("serial").primaryKey(),
  instance: text("instance").notNull(),
  identity: text("identity").notNull(),
  notBefore: integer("not_before").notNull(),
  notAfter: integer("not_after").notNull(),
  issuedAt: integer("issued_at").notNull(),
});

export const tokens = sqliteTable("tokens", {
  id: text("id").primaryKey(),
  kind: text("kind", { enum: ["admin", "join"] }).notNull(),
  secretHash: text("secret_hash").notNull(),
  scope: text("scope", { mode: "json" }).$type<TokenScope>().notNull(),
  description: text("description").notNull(),
  createdBy: text("created_by").notNull(),
  createdAt: integer("created_at").notNull(),
  expiresAt: integer("expires_at"),
  once: integer("once", { mode: "boolean" }).notNull(),
  usedAt: integer("used_at"),
  revokedAt: integer("revoked_at"),
});

export const audit = sqliteTable("audit", {
  seq: integer("seq").primaryKey(),
  t: integer("t").notNull(),
  actor: text("actor").notNull(),
  action: text("action").notNull(),
  subject: text("subject").notNull(),
  detail: text("detail").notNull(),
  hash: text("hash").notNull(),
});
