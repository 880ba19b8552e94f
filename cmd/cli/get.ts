/** `weft get`: documents as lists or whole. */
import type { ResourceAnswer } from "../../src/api/answers.ts";
import { faultsOf } from "../../src/config/conditions.ts";
import type { PortMtlsOf } from "../../src/config/port-mtls.ts";
import { type HttpRouteResource, type Resource, targetName } from "../../src/config/resource.ts";
import { toYaml } from "../../src/config/to-yaml.ts";
import { EXIT } from "../../src/error.ts";
import { type Client, getAll } from "./client.ts";
import { readKindAndName, resourcePath, STORED_KINDS, type StoredKind } from "./kinds.ts";
import { printListing, watch } from "./list.ts";
import { storedMtls } from "./mtls.ts";
import type { Session, Typed } from "./session.ts";
import { age, type Column } from "./table.ts";
import type { Terminal } from "./terminal.ts";
import { type Format, LIST_FORMATS, typedFormat, typedToggle } from "./typed.ts";

export async function get(
  session: Session,
  args: readonly string[],
  typed: Typed,
): Promise<number> {
  const format = typedFormat(typed, LIST_FORMATS);
  const client = await session.client();
  const asked = args[0] === undefined ? undefined : readKindAndName("get", args[0], args[1]);
  const services = asked === undefined || asked.kind === "Service";
  const show = async (terminal: Terminal) => {
    const mtls = services && format === "wide" ? await storedMtls(client) : undefined;
    if (asked?.name !== undefined) {
      const path = resourcePath(asked.kind, session.namespace, asked.name);
      printOne(terminal, await client.get<ResourceAnswer>(path), format, mtls);
    } else {
      const kinds = asked === undefined ? STORED_KINDS : [asked.kind];
      const found = await list(
        client,
        kinds,
        session.namespace,
        typedToggle(typed, "allNamespaces"),
      );
      printMany(terminal, found, format, mtls);
    }
  };
  if (typedToggle(typed, "watch")) await watch(session.terminal, show);
  await show(session.terminal);
  return EXIT.ok;
}

async function list(
  client: Client,
  kinds: readonly StoredKind[],
  namespace: string,
  all: boolean,
): Promise<readonly ResourceAnswer[]> {
  const lists = kinds.map((kind) =>
    getAll<ResourceAnswer>(client, all ? `/v1/resources/${kind}` : resourcePath(kind, namespace)),
  );
  return (await Promise.all(lists)).flat();
}

function printOne(
  terminal: Terminal,
  found: ResourceAnswer,
  format: Format,
  mtls: PortMtlsOf | undefined,
): void {
  if (format === "json") terminal.out(`${JSON.stringify(whole(found), null, 2)}\n`);
  else if (format === "yaml") terminal.out(toYaml(found.resource, found.status));
  else printMany(terminal, [found], format, mtls);
}

/** `mtls`: where it is to be shown. */
function printMany(
  terminal: Terminal,
  found: readonly ResourceAnswer[],
  format: Format,
  mtls: PortMtlsOf | undefined,
): void {
  if (format === "yaml") {
    terminal.out(found.map(({ resource, status }) => toYaml(resource, status)).join("---\n"));
    return;
  }
  printListing(
    terminal,
    {
      columns: columns(terminal.now(), found, mtls),
      rows: found,
      nameOf: ({ key }) => key,
      value: found.map(whole),
      empty: "nothing found; -A looks in all namespaces",
    },
    format,
  );
}

/** As the API of Kubernetes shows it: the document, and how it fares if not well. */
function whole({ resource, status }: ResourceAnswer): object {
  return status === undefined ? resource : { ...resource, status };
}

/** What is wrong with a document that was accepted, in words of the Gateway API. */
function faults({ status }: ResourceAnswer): string {
  if (status === undefined) return "";
  return [...new Set(faultsOf(status).map(({ reason }) => reason))].join(",");
}

function columns(
  now: number,
  found: readonly ResourceAnswer[],
  mtls: PortMtlsOf | undefined,
): readonly Column<ResourceAnswer>[] {
  const wrong = found.some(({ status }) => status !== undefined);
  return [
    { title: "NAMESPACE", text: ({ resource }) => resource.metadata.namespace },
    { title: "KIND", text: ({ resource }) => resource.kind },
    { title: "NAME", text: ({ resource }) => resource.metadata.name },
    { title: "SAYS", text: ({ resource }) => gist(resource) },
    ...(wrong ? [{ title: "WRONG", text: faults }] : []),
    { title: "REVISION", text: ({ revision }) => String(revision), align: "right" },
    { title: "AGE", text: ({ t }) => age(now - t), align: "right" },
    ...(mtls === undefined
      ? []
      : [{ title: "MTLS", text: ({ resource }: ResourceAnswer) => modes(resource, mtls) }]),
    { title: "ORIGIN", text: ({ origin }) => origin, wide: true },
    {
      title: "LABELS",
      text: ({ resource }) => pairs(resource.metadata.labels),
      wide: true,
    },
  ];
}

function pairs(labels: Readonly<Record<string, string>>): string {
  return Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(",");
}

/** `STRICT` where all ports of a service agree, otherwise `80/PERMISSIVE,81/STRICT`. */
export function modes({ kind, metadata, spec }: Resource, mtls: PortMtlsOf): string {
  if (kind !== "Service") return "";
  const each = spec.ports.map(({ port }) => {
    const { mode } = mtls(metadata.namespace, metadata.name, port);
    return { port, mode };
  });
  if (new Set(each.map(({ mode }) => mode)).size === 1) return each[0]!.mode;
  return each.map(({ port, mode }) => `${port}/${mode}`).join(",");
}

/** What a document says, in a few words. */
function gist(resource: Resource): string {
  switch (resource.kind) {
    case "Mesh":
      return resource.spec.outbound ?? "defaults";
    case "Service": {
      const ports = resource.spec.ports.map(
        ({ port, protocol }) => `${port}/${protocol ?? "undeclared"}`,
      );
      const subsets = resource.spec.subsets?.map(({ name }) => name) ?? [];
      return ports.join(",") + (subsets.length === 0 ? "" : ` subsets ${subsets.join(",")}`);
    }
    case "Workload":
      return `${resource.spec.service} at ${resource.spec.address}`;
    case "TrafficPolicy":
      return `for ${resource.spec.target.service}`;
    case "PeerAuth":
      return `${resource.spec.mtls.mode} for ${targetName(resource)}`;
    case "HTTPRoute":
      return routeGist(resource);
    case "Process":
      return resource.spec.command.join(" ");
  }
}

function routeGist({ spec }: HttpRouteResource): string {
  const parents = (spec.parentRefs ?? []).map(({ name }) => name).join(",");
  const backends = (spec.rules ?? []).flatMap((rule) =>
    (rule.backendRefs ?? []).map(({ name, weight }) => `${name}:${weight ?? 1}`),
  );
  const shown = backends.slice(0, 4).join(" ");
  return `${parents} -> ${shown}${backends.length > 4 ? " …" : ""}`;
}
