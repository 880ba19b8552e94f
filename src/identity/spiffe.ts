/**
 * SPIFFE IDs (SPIFFE-ID standard, section 2) and the names derived from them: the mesh's identity
 * scheme, the DNS names in certificates, and the SNI by which one proxy dials another.
 */

export interface SpiffeId {
  readonly trustDomain: string;
  /** Empty, or starts with `/`. */
  readonly path: string;
}

const SCHEME = "spiffe://";
const MAX_LENGTH = 2048;
const MAX_TRUST_DOMAIN = 255;
const TRUST_DOMAIN = /^[a-z0-9._-]+$/;
const SEGMENT = /^[A-Za-z0-9._-]+$/;
/** RFC 1123 label. */
const LABEL = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

/** Namespace and service account of the control plane. */
export const CONTROL_NAMESPACE = "weft-system";
export const CONTROL_ACCOUNT = "controlplane";
/** DNS name in the control plane's certificate, which every client dials with. */
export const CONTROL_SERVER_NAME = "controlplane.weft";

/** The ID, or undefined when the text is not exactly one valid SPIFFE ID. */
export function parseSpiffeId(text: string): SpiffeId | undefined {
  if (text.length > MAX_LENGTH || !text.startsWith(SCHEME)) return undefined;
  const rest = text.slice(SCHEME.length);
  const slash = rest.indexOf("/");
  const trustDomain = slash < 0 ? rest : rest.slice(0, slash);
  if (!TRUST_DOMAIN.test(trustDomain) || trustDomain.length > MAX_TRUST_DOMAIN) return undefined;
  if (slash < 0) return { trustDomain, path: "" };
  const path = rest.slice(slash);
  for (const segment of path.slice(1).split("/")) {
    if (!SEGMENT.test(segment) || segment === "." || segment === "..") return undefined;
  }
  return { trustDomain, path };
}

/** A trust domain given as its name or as any SPIFFE ID inside it; undefined when invalid. */
export function parseTrustDomain(text: string): string | undefined {
  if (text.includes(":/")) return parseSpiffeId(text)?.trustDomain;
  return TRUST_DOMAIN.test(text) && text.length <= MAX_TRUST_DOMAIN ? text : undefined;
}

/**
 * Whether a trust domain can serve a mesh: dot-separated DNS labels, at most 118 characters, so
 * that `p<port>.<service>.<namespace>.<trust-domain>` stays a valid DNS name.
 */
export function isMeshTrustDomain(text: string): boolean {
  return text.length <= 118 && text.split(".").every((label) => LABEL.test(label));
}

/** Whether `text` may name a service, namespace or service account. */
export function isName(text: string): boolean {
  return LABEL.test(text);
}

export function formatSpiffeId(id: SpiffeId): string {
  return `${SCHEME}${id.trustDomain}${id.path}`;
}

/** Identity of a workload: `spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>`. */
export function spiffeIdOf(trustDomain: string, namespace: string, account: string): string {
  return `${SCHEME}${trustDomain}/ns/${namespace}/sa/${account}`;
}

export interface WorkloadIdentity {
  readonly trustDomain: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** The parts of a workload's identity; undefined for any other SPIFFE ID. */
export function parseWorkloadIdentity(text: string): WorkloadIdentity | undefined {
  const id = parseSpiffeId(text);
  if (id === undefined) return undefined;
  const [empty, ns, namespace = "", sa, serviceAccount = "", ...rest] = id.path.split("/");
  if (empty !== "" || ns !== "ns" || sa !== "sa" || rest.length > 0) return undefined;
  if (!isName(namespace) || !isName(serviceAccount)) return undefined;
  return { trustDomain: id.trustDomain, namespace, serviceAccount };
}

/** DNS names in a workload's certificate for one service it serves. */
export function serviceDnsNames(trustDomain: string, namespace: string, service: string): string[] {
  const name = `${service}.${namespace}.${trustDomain}`;
  return [name, `*.${name}`];
}

/** SNI that reaches a port of a service: `p<port>.<service>.<namespace>.<trust-domain>`. */
export function sniOf(
  port: number,
  service: string,
  namespace: string,
  trustDomain: string,
): string {
  return `p${port}.${service}.${namespace}.${trustDomain}`;
}

export interface SniTarget {
  readonly port: number;
  readonly service: string;
  readonly namespace: string;
}

/** What an SNI of this trust domain asks for, in any case; undefined when it is not one. */
export function parseSni(sni: string, trustDomain: string): SniTarget | undefined {
  const name = sni.toLowerCase();
  if (!name.endsWith(`.${trustDomain}`)) return undefined;
  const labels = name.slice(0, -trustDomain.length - 1).split(".");
  const [first = "", service = "", namespace = ""] = labels;
  if (labels.length !== 3 || !isName(service) || !isName(namespace)) return undefined;
  if (!/^p[1-9][0-9]{0,4}$/.test(first)) return undefined;
  const port = Number(first.slice(1));
  return port <= 65_535 ? { port, service, namespace } : undefined;
}
