/** Whether a token lets a workload join, and as what. */
import { EXIT, Failure } from "../error.ts";
import { parseToken, secretMatches } from "../identity/token.ts";
import type { TokenRow } from "../store/rows.ts";
import type { Store } from "../store/store.ts";
import { token as findToken } from "../store/tokens.ts";

/** A token and what is asked with it. */
export interface TokenUse {
  /** The whole token, `weft_…`. */
  readonly token: string;
  readonly service: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

const FIX_NEW_TOKEN = "create another with 'weft token create' and join with it";

export function refuse(
  status: 400 | 401 | 403 | 404 | 429,
  code: string,
  message: string,
  fix: string,
) {
  return new Failure(code, message, fix, { status, exit: EXIT.refused });
}

/** Checks a presented token down to its scope; the one-time use is noted later. */
export function checkToken(store: Store, request: TokenUse, now: number): TokenRow {
  const token = parseToken(request.token);
  const row = token === undefined ? undefined : findToken(store, token.id);
  if (token === undefined || row === undefined || !secretMatches(token.secret, row.secretHash)) {
    throw refuse(401, "token_invalid", "the token is not one of this mesh", FIX_NEW_TOKEN);
  }
  if (row.kind !== "join") {
    throw refuse(403, "token_kind", "an admin token cannot join a workload", FIX_NEW_TOKEN);
  }
  if (row.revokedAt !== null) {
    throw refuse(401, "token_revoked", `token ${row.id} was revoked`, FIX_NEW_TOKEN);
  }
  if (row.expiresAt !== null && now >= row.expiresAt) {
    throw refuse(401, "token_expired", `token ${row.id} has expired`, FIX_NEW_TOKEN);
  }
  if (row.once && row.usedAt !== null) throw usedUp(row);
  const { namespace, services } = row.scope;
  if (namespace !== undefined && namespace !== request.namespace) {
    throw outOfScope(row, `is for namespace ${namespace}, not ${request.namespace}`);
  }
  if (services !== undefined) {
    if (!services.includes(request.service)) {
      throw outOfScope(row, `is not for service ${request.service}`);
    }
    // Policies match the account: a token for one service must not give another's identity.
    if (!services.includes(request.serviceAccount)) {
      throw outOfScope(row, `is not for service account ${request.serviceAccount}`);
    }
  }
  return row;
}

export function usedUp(row: TokenRow): Failure {
  return refuse(401, "token_used", `one-time token ${row.id} was used before`, FIX_NEW_TOKEN);
}

function outOfScope(row: TokenRow, why: string): Failure {
  return refuse(403, "token_scope", `token ${row.id} ${why}`, FIX_NEW_TOKEN);
}
