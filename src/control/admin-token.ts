/** The first admin token: made once, readable by the control plane's user alone. */
import { join } from "node:path";
import { readSecret, writeSecret } from "../identity/secret-file.ts";
import {
  createToken,
  formatToken,
  parseToken,
  secretHash,
  secretMatches,
} from "../identity/token.ts";
import { appendAudit } from "../store/audit.ts";
import type { Store } from "../store/store.ts";
import { putToken, token as storedToken } from "../store/tokens.ts";

export interface AdminTokenOptions {
  readonly store: Store;
  readonly dataFolder: string;
  /** `https://host:port` of the API. */
  readonly url: string;
  readonly rootHashes: readonly string[];
  readonly now: () => number;
}

export const ADMIN_TOKEN_FILE = "admin.token";

/** Keeps the token in `admin.token` if the store knows it; else writes a new one, without expiry. */
export function ensureAdminToken(options: AdminTokenOptions): void {
  const { store, now } = options;
  const path = join(options.dataFolder, ADMIN_TOKEN_FILE);
  if (isKnown(store, readSecret(path))) return;
  const token = createToken(options.url, options.rootHashes, 0);
  const t = now();
  store.write(() => {
    putToken(store, {
      id: token.id,
      kind: "admin",
      secretHash: secretHash(token.secret),
      scope: {},
      description: `written to ${ADMIN_TOKEN_FILE}`,
      createdBy: "controlplane",
      createdAt: t,
      expiresAt: null,
      once: false,
      usedAt: null,
      revokedAt: null,
    });
    const detail = { kind: "admin" };
    appendAudit(store, {
      t,
      actor: "controlplane",
      action: "token.create",
      subject: token.id,
      detail,
    });
    // Inside the transaction: a token that cannot be written must not be stored either.
    writeSecret(path, `${formatToken(token)}\n`);
  });
}

function isKnown(store: Store, text: string | undefined): boolean {
  const token = text === undefined ? undefined : parseToken(text);
  const row = token === undefined ? undefined : storedToken(store, token.id);
  if (token === undefined || row === undefined) return false;
  return row.revokedAt === null && secretMatches(token.secret, row.secretHash);
}
