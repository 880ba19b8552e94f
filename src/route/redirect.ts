/** Where a RequestRedirect filter sends the caller (Gateway API, HTTPRequestRedirectFilter). */
import type { RedirectDocument } from "../snapshot/document.ts";
import { editPath, originForm } from "./target.ts";

export interface RedirectFacts {
  readonly scheme: "http" | "https";
  /** Host of the request without its port. */
  readonly host: string;
  /** Port the request was sent to: of the listener, or of the service. */
  readonly port: number;
  readonly target: string;
  /** Trimmed prefix the route matched. */
  readonly prefix: string;
}

const WELL_KNOWN: Readonly<Record<string, number>> = { http: 80, https: 443 };

/** The value of the Location field. */
export function redirectLocation(redirect: RedirectDocument, facts: RedirectFacts): string {
  const scheme = redirect.scheme ?? facts.scheme;
  const host = redirect.hostname ?? facts.host;
  const implied = redirect.scheme === undefined ? facts.port : WELL_KNOWN[redirect.scheme];
  const port = redirect.port ?? implied ?? facts.port;
  const suffix = WELL_KNOWN[scheme] === port ? "" : `:${port}`;
  const path =
    redirect.path === undefined
      ? originForm(facts.target)
      : editPath(facts.target, redirect.path, facts.prefix);
  return `${scheme}://${host}${suffix}${path}`;
}
