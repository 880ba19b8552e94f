/** What keeps the bus from its work, in words an operator can act on. */
import { Failure } from "../error.ts";

/** The server let us in, but not as somebody it knows, or not into the mesh's account. */
export class ForeignServer extends Error {
  readonly account: string;

  constructor(account: string) {
    super(account === "" ? "the server does not say who is who" : `it put us into ${account}`);
    this.name = "ForeignServer";
    this.account = account;
  }
}

const FIX_CONFIG = "configure it with what `weft nats config` prints";
const FIX_OWN = "proxies keep what they have; see the control plane's log for nats-server";

/** `at`: the URLs that were tried; `external`: the operator runs the server. */
export function explainLink(error: unknown, at: string, external: boolean): Failure {
  const text = error instanceof Error ? error.message : String(error);
  const code = codeOf(error);
  if (!external) return away("bus_away", `NATS at ${at} does not answer${because(text)}`, FIX_OWN);
  if (error instanceof ForeignServer) return foreignServer(error, at);
  // Nobody answers who we are: servers do since 2.10.
  if (code === "503") {
    return away("bus_old", `NATS at ${at} is older than 2.10`, "upgrade it, or run another");
  }
  if (/authorization|authentication|account|expired/i.test(`${code} ${text}`)) {
    const message = `NATS at ${at} does not accept this mesh's credentials`;
    return away("bus_denied", message, FIX_CONFIG);
  }
  if (/altname|hostname\/ip/i.test(text)) {
    const message = `the certificate of NATS at ${at} is for another name`;
    return away("bus_name", message, "name the server in --nats-url as its certificate does");
  }
  if (/certificate|self.signed|CERT_|unable to verify|issuer/i.test(`${code} ${text}`)) {
    const message = `the certificate of NATS at ${at} is not trusted${because(text)}`;
    return away("bus_untrusted", message, "give the CA that signed it: --nats-ca FILE");
  }
  // The client's word for a server without TLS where TLS was asked for.
  if (text === "tls" || code === "SERVER_OPTION_NOT_AVAILABLE") {
    const message = `NATS at ${at} does not offer TLS`;
    return away("bus_plain", message, "give it a certificate (`tls {…}`), or use nats:// inside");
  }
  if (/CONNECTION_REFUSED|ECONNREFUSED/.test(`${code} ${text}`)) {
    return away("bus_away", `nothing listens at ${at}`, "start NATS there, or correct --nats-url");
  }
  const message = `NATS at ${at} does not answer${because(text)}`;
  return away("bus_away", message, "is it running and reachable? does --nats-url name it?");
}

/** Writes fail although the server lets us in. */
export function explainWrites(error: unknown, at: string, external: boolean): Failure {
  const text = error instanceof Error ? error.message : String(error);
  if (!external)
    return away("bus_stuck", `NATS at ${at} does not store documents: ${text}`, FIX_OWN);
  if (/\b503\b|JetStream not enabled|no responders/i.test(text)) {
    const message = `NATS at ${at} has no JetStream, or not for the mesh's account`;
    return away("bus_no_jetstream", message, FIX_CONFIG);
  }
  const message = `NATS at ${at} does not store documents: ${text}`;
  return away("bus_stuck", message, "see the log of that nats-server: disk, limits, cluster");
}

function foreignServer({ account }: ForeignServer, at: string): Failure {
  const who = account === "$G" || account === "" ? "lets everybody in" : `puts us into ${account}`;
  const message = `NATS at ${at} ${who}: workloads could speak for each other there`;
  return away("bus_open", message, FIX_CONFIG);
}

function away(code: string, message: string, fix: string): Failure {
  return new Failure(code, message, fix, { status: 503 });
}

function because(text: string): string {
  return text === "" ? "" : ` (${text})`;
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}
