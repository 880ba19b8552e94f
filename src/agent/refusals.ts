/** What an agent tells an operator when it cannot go on. */
import { EXIT, Failure } from "../error.ts";
import type { Membership } from "./identity-file.ts";

interface Workload {
  readonly namespace: string;
  readonly service: string;
  readonly serviceAccount: string;
  readonly folder: string;
}

export function refuseOther(options: Workload, membership: Membership): void {
  const { namespace, service, serviceAccount } = membership;
  const same =
    namespace === options.namespace &&
    service === options.service &&
    serviceAccount === options.serviceAccount;
  if (same) return;
  throw new Failure(
    "identity_other",
    `${options.folder} holds the identity of ${namespace}/${service} (account ${serviceAccount})`,
    "choose another folder with --data DIR, or remove this one",
    { exit: EXIT.refused },
  );
}

export function tokenMissing(options: Workload, membership: Membership | undefined): Failure {
  const name = `${options.namespace}/${options.service}`;
  const why =
    membership === undefined ? "has not joined yet and has no token" : "has an expired certificate";
  return new Failure(
    "token_missing",
    `${name} ${why}`,
    "create a token with 'weft token create' and pass it by --token-file",
    { exit: membership === undefined ? EXIT.usage : EXIT.refused },
  );
}

export function tokenMalformed(): Failure {
  return new Failure(
    "token_malformed",
    "the token is not a weft token",
    "pass the whole line that 'weft token create' printed",
    { exit: EXIT.refused },
  );
}

export function tokenExpired(id: string): Failure {
  return new Failure(
    "token_expired",
    `token ${id} has expired`,
    "create another with 'weft token create'",
    { exit: EXIT.refused },
  );
}
