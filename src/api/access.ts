/** Who is calling. Decided from headers and certificate alone, before a body is looked at. */
import { parseToken, secretMatches } from "../identity/token.ts";
import type { ServeEnv } from "../serve/serve.ts";
import type { TokenRow } from "../store/rows.ts";
import type { Store } from "../store/store.ts";
import { token as storedToken } from "../store/tokens.ts";
import { refusal } from "./problem.ts";
import type { Access } from "./route.ts";

export interface Caller {
  /** `token:<id>`, a SPIFFE ID, or "" for an open route. */
  readonly actor: string;
  readonly token: string;
}

const FIX_ADMIN = "give an admin token: --token-file <data>/admin.token";

/** @throws Failure 401 or 403. */
export function identify(
  access: Access,
  authorization: string | undefined,
  env: ServeEnv,
  store: Store,
  now: number,
): Caller {
  if (access === "open") return { actor: "", token: "" };
  if (access === "peer") return { actor: peerOf(env), token: "" };
  const [, token = ""] = /^Bearer +(\S+)$/i.exec(authorization ?? "") ?? [];
  if (token === "") {
    const fix = access === "admin" ? FIX_ADMIN : "send the join token as a bearer token";
    throw refusal(401, "token_missing", "the request carries no token", fix);
  }
  const row = checkToken(token, store, now);
  if (row.kind !== access) {
    throw refusal(
      403,
      "token_kind",
      row.kind === "join" ? "a join token is only for joining" : "an admin token cannot join",
      access === "admin" ? FIX_ADMIN : "create one with: weft token create",
    );
  }
  return { actor: `token:${row.id}`, token };
}

function checkToken(text: string, store: Store, now: number): TokenRow {
  const token = parseToken(text);
  const row = token === undefined ? undefined : storedToken(store, token.id);
  const refuse = (code: string, message: string) =>
    refusal(401, code, message, "use another token; weft token create makes one");
  if (token === undefined || row === undefined || !secretMatches(token.secret, row.secretHash)) {
    throw refuse("token_invalid", "the token is not one of this mesh");
  }
  if (row.revokedAt !== null) throw refuse("token_revoked", `token ${row.id} was revoked`);
  if (row.expiresAt !== null && now >= row.expiresAt) {
    throw refuse("token_expired", `token ${row.id} has expired`);
  }
  return row;
}

function peerOf(env: ServeEnv): string {
  const [identity] = env.peer?.uris ?? [];
  if (env.peer?.authorized && identity !== undefined && env.peer.uris.length === 1) return identity;
  throw refusal(
    401,
    "certificate_missing",
    "the request came without a certificate of this mesh",
    "present the certificate the control plane issued; an expired one means joining again",
  );
}
