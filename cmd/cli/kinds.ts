/** Kinds as people type them: `svc`, `services`, `httproute`, `routes`. */
import { usage } from "../grammar.ts";

/** Kinds the control plane keeps, in the order `get` lists them. */
export const STORED_KINDS = [
  "Mesh",
  "Service",
  "Workload",
  "TrafficPolicy",
  "PeerAuth",
  "HTTPRoute",
] as const;

export type StoredKind = (typeof STORED_KINDS)[number];

const SHORT: Readonly<Record<string, StoredKind>> = {
  svc: "Service",
  wl: "Workload",
  policy: "TrafficPolicy",
  policies: "TrafficPolicy",
  trafficpolicies: "TrafficPolicy",
  tp: "TrafficPolicy",
  pa: "PeerAuth",
  route: "HTTPRoute",
  routes: "HTTPRoute",
  meshes: "Mesh",
};

function readKind(text: string, verb: string): StoredKind {
  const typed = text.toLowerCase();
  const found =
    SHORT[typed] ??
    STORED_KINDS.find((kind) => {
      const lower = kind.toLowerCase();
      return typed === lower || typed === `${lower}s`;
    });
  if (found !== undefined) return found;
  const known = STORED_KINDS.map((kind) => kind.toLowerCase()).join(", ");
  const fix = `one of ${known}; for a service: weft ${verb} service/${text}`;
  throw usage(`there is no kind "${text}"`, fix);
}

/** `service/cart` or `service cart`, as typed after a verb. */
export function readKindAndName(
  verb: string,
  first: string,
  second: string | undefined,
): { readonly kind: StoredKind; readonly name: string | undefined } {
  const slash = first.indexOf("/");
  if (slash < 0 || second !== undefined) return { kind: readKind(first, verb), name: second };
  return { kind: readKind(first.slice(0, slash), verb), name: first.slice(slash + 1) };
}

/** Path of a resource in the API; Mesh belongs to no namespace. */
export function resourcePath(kind: StoredKind, namespace: string, name?: string): string {
  const parts = ["/v1/resources", kind];
  if (kind !== "Mesh") parts.push(encodeURIComponent(namespace));
  if (name !== undefined) parts.push(encodeURIComponent(name));
  return parts.join("/");
}
