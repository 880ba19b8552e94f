/** How a service port meets its callers: by mutual TLS alone, or by plaintext too. */
import { type PeerAuthResource, type Resource, resourceKey, targetName } from "./resource.ts";

/** What holds for one port. */
export interface PortMtls {
  readonly mode: PeerAuthResource["spec"]["mtls"]["mode"];
  /** Key of the document that says so; undefined = none does. */
  readonly by: string | undefined;
}

export type PortMtlsOf = (namespace: string, service: string, port: number) => PortMtls;

/**
 * The narrowest document decides: of the port, of the service, of its namespace, the Mesh. Where
 * none says anything it is STRICT.
 */
export function portMtls(documents: readonly Resource[]): PortMtlsOf {
  const said = new Map<string, PortMtls>();
  for (const document of documents) {
    if (document.kind !== "Mesh" && document.kind !== "PeerAuth") continue;
    const target = document.kind === "Mesh" ? "" : targetName(document);
    const mode = document.spec.mtls?.mode;
    if (mode === undefined || said.has(target)) continue;
    said.set(target, { mode, by: resourceKey(document) });
  }
  return (namespace, service, port) =>
    said.get(`${namespace}/${service}:${port}`) ??
    said.get(`${namespace}/${service}`) ??
    said.get(namespace) ??
    said.get("") ?? { mode: "STRICT", by: undefined };
}
