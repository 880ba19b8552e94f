/** Services that a proxy's routes lead to although it may not read their documents yet. */
import type { OutDocument } from "../snapshot/document.ts";
import type { ServiceName } from "./control-client.ts";

/** The ones missing among `keys`, each once. */
export function unreadBackends(
  documents: ReadonlyMap<string, object>,
  keys: readonly string[],
): ServiceName[] {
  const missing = new Map<string, ServiceName>();
  for (const [key, body] of documents) {
    if (!key.startsWith("out.")) continue;
    for (const port of (body as Partial<OutDocument>).ports ?? []) {
      for (const rule of port.routes?.rules ?? []) {
        for (const { namespace, service, invalid } of rule.backends) {
          const name = `out.${namespace}.${service}`;
          if (invalid === true || documents.has(name) || keys.includes(name)) continue;
          missing.set(name, { namespace, service });
        }
      }
    }
  }
  return [...missing.values()];
}
