/** Documents as the rest of weft sees them: valid by themselves, fields as the user wrote them. */
import type * as v from "valibot";
import type { httpRouteSpec } from "./http-route.ts";
import type {
  meshSpec,
  peerAuthSpec,
  processSpec,
  serviceSpec,
  trafficPolicySpec,
  workloadSpec,
} from "./kinds.ts";

/** A text to read documents from: a file name, `-`, or what the caller calls it. */
export interface Source {
  readonly name: string;
  readonly text: string;
}

/** One thing wrong with a document. Stable: the API answers with these. */
export interface Issue {
  readonly source: string;
  /** From 1; 0 when the document was not part of the input. */
  readonly line: number;
  readonly column: number;
  /** `spec.rules[0].backendRefs[1].weight`; "" for the document itself. */
  readonly path: string;
  /** The offending value, shortened. */
  readonly value: string;
  readonly reason: string;
  readonly fix: string;
  /** Stable, snake_case. */
  readonly code: string;
}

export type Path = readonly (string | number)[];

type DeepReadonly<T> = T extends (infer Item)[]
  ? readonly DeepReadonly<Item>[]
  : T extends object
    ? { readonly [Key in keyof T]: DeepReadonly<T[Key]> }
    : T;

export interface Metadata {
  readonly name: string;
  /** "" for Mesh, which belongs to no namespace. */
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
}

type Shape<Kind extends string, Schema extends v.GenericSchema> = {
  readonly apiVersion: string;
  readonly kind: Kind;
  readonly metadata: Metadata;
  readonly spec: DeepReadonly<v.InferOutput<Schema>>;
};

export type MeshResource = Shape<"Mesh", typeof meshSpec>;
export type ServiceResource = Shape<"Service", typeof serviceSpec>;
export type WorkloadResource = Shape<"Workload", typeof workloadSpec>;
export type TrafficPolicyResource = Shape<"TrafficPolicy", typeof trafficPolicySpec>;
export type PeerAuthResource = Shape<"PeerAuth", typeof peerAuthSpec>;
export type HttpRouteResource = Shape<"HTTPRoute", typeof httpRouteSpec>;
/** Only for `weft up`. */
export type ProcessResource = Shape<"Process", typeof processSpec>;

export type Resource =
  | MeshResource
  | ServiceResource
  | WorkloadResource
  | TrafficPolicyResource
  | PeerAuthResource
  | HttpRouteResource
  | ProcessResource;

export type Kind = Resource["kind"];

export const WEFT_VERSION = "weft.dev/v1";
export const GATEWAY_VERSION = "gateway.networking.k8s.io/v1";

/** The apiVersion of every kind. */
export const API_VERSIONS: Readonly<Record<Kind, string>> = {
  Mesh: WEFT_VERSION,
  Service: WEFT_VERSION,
  Workload: WEFT_VERSION,
  TrafficPolicy: WEFT_VERSION,
  PeerAuth: WEFT_VERSION,
  HTTPRoute: GATEWAY_VERSION,
  Process: WEFT_VERSION,
};

export interface Position {
  readonly line: number;
  readonly column: number;
}

/** A resource that remembers where it was written. */
export interface ParsedResource {
  readonly resource: Resource;
  readonly source: string;
  /** Where the value at `path` stands, or the nearest thing above it that exists. */
  at(path: Path): Position;
}

/** `HTTPRoute/default/reviews`; `Mesh/mesh` for the one without namespace. */
export function resourceKey(resource: {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace: string };
}): string {
  const { name, namespace } = resource.metadata;
  return namespace === "" ? `${resource.kind}/${name}` : `${resource.kind}/${namespace}/${name}`;
}

/** `<namespace>[/<service>[:<port>]]`: what a document with a target is about. */
export function targetName({ metadata, spec }: TrafficPolicyResource | PeerAuthResource): string {
  const { service, port } = spec.target ?? {};
  if (service === undefined) return metadata.namespace;
  return `${metadata.namespace}/${service}${port === undefined ? "" : `:${port}`}`;
}

/** `spec.rules[0].name`; names that are no identifiers are quoted. */
export function pathText(path: Path): string {
  let text = "";
  for (const part of path) {
    if (typeof part === "number") text += `[${part}]`;
    else if (/^[A-Za-z_][A-Za-z0-9_-]*$/.test(part)) text += text === "" ? part : `.${part}`;
    else text += `[${JSON.stringify(part)}]`;
  }
  return text;
}
