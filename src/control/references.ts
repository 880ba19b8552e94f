/** Which documents a document names. References mean documents, never current workloads. */
import type { Resource } from "../config/resource.ts";

/** Keys of the documents that must exist for this one to mean something. */
export function referencesOf(resource: Resource): string[] {
  const { namespace } = resource.metadata;
  switch (resource.kind) {
    case "TrafficPolicy":
      return [serviceKey(namespace, resource.spec.target.service)];
    case "PeerAuth": {
      const { target } = resource.spec;
      return target === undefined ? [] : [serviceKey(namespace, target.service)];
    }
    case "Workload":
      return [serviceKey(namespace, resource.spec.service)];
    case "HTTPRoute": {
      const refs = [
        ...(resource.spec.parentRefs ?? []),
        ...resource.spec.rules.flatMap((rule) => rule.backendRefs ?? []),
      ];
      return [
        ...new Set(
          refs.map((ref) => {
            // A subset is named `<service>.<subset>`; service names have no dots.
            const [service = ref.name] = ref.name.split(".");
            return serviceKey(ref.namespace ?? namespace, service);
          }),
        ),
      ];
    }
    default:
      return [];
  }
}

function serviceKey(namespace: string, name: string): string {
  return `Service/${namespace}/${name}`;
}
