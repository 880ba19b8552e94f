/** Resources back to YAML, for people: what `get -o yaml` prints can be applied again. */
import { stringify } from "yaml";
import type { ResourceStatus } from "./conditions.ts";
import type { Resource } from "./resource.ts";

/** One document, without `---`. Empty labels and the namespace of Mesh are left out. */
export function toYaml(resource: Resource, status?: ResourceStatus): string {
  const { name, namespace, labels } = resource.metadata;
  const metadata = {
    name,
    ...(namespace === "" ? {} : { namespace }),
    ...(Object.keys(labels).length === 0 ? {} : { labels }),
  };
  const { apiVersion, kind, spec } = resource;
  // `compat` also quotes words that YAML 1.1 readers would take for booleans.
  const said = { apiVersion, kind, metadata, spec, ...(status === undefined ? {} : { status }) };
  return stringify(said, { compat: "yaml-1.1", lineWidth: 100 });
}
