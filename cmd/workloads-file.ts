/** The `--workloads` file: a YAML or JSON list with one entry per workload of the host. */
import { readYaml } from "./flags.ts";
import {
  readAppPorts,
  readLabels,
  readLocality,
  readName,
  readOutboundAddress,
  readUpstreams,
  usage,
} from "./grammar.ts";
import type { WorkloadSpec } from "./options.ts";

const FIELDS = [
  "service",
  "namespace",
  "serviceAccount",
  "app",
  "upstream",
  "labels",
  "out",
  "locality",
  "weight",
] as const;

type Field = (typeof FIELDS)[number];

export interface WorkloadDefaults {
  readonly namespace: string;
  readonly locality: string;
}

export function readWorkloadsFile(
  path: string,
  where: string,
  defaults: WorkloadDefaults,
): readonly WorkloadSpec[] {
  const list = readYaml(path, where);
  if (!Array.isArray(list)) {
    throw usage(`${path}: not a list of workloads`, "start each with - service: NAME");
  }
  return list.map((entry: unknown, index) =>
    readEntry(entry, `${path}: entry ${index + 1}`, defaults),
  );
}

/** One entry; `where` names file and position. */
export function readEntry(entry: unknown, where: string, defaults: WorkloadDefaults): WorkloadSpec {
  if (typeof entry !== "object" || entry === null || Array.isArray(entry)) {
    throw usage(`${where}: not a mapping`, "write service: NAME and app: [PORT]");
  }
  const values: Readonly<Record<string, unknown>> = { ...entry };
  for (const key of Object.keys(values)) {
    if (!FIELDS.some((field) => field === key)) {
      throw usage(`${where}: unknown field "${key}"`, `one of ${FIELDS.join(", ")}`);
    }
  }
  const at = (field: Field) => `${where}, ${field}`;
  const text = (field: Field) => readText(values[field], at(field));
  const service = text("service");
  if (service === undefined) throw usage(`${where}: service is missing`, "write service: NAME");
  const out = text("out");
  const locality = text("locality");
  return {
    service: readName(service, at("service")),
    namespace: readName(text("namespace") ?? defaults.namespace, at("namespace")),
    serviceAccount: readName(text("serviceAccount") ?? service, at("serviceAccount")),
    app: readAppPorts(readTexts(values["app"], at("app")), at("app")),
    upstream: readUpstreams(readTexts(values["upstream"], at("upstream")), at("upstream")),
    labels: readLabels(readPairs(values["labels"], at("labels")), at("labels")),
    locality: locality === undefined ? defaults.locality : readLocality(locality, at("locality")),
    weight: readWeight(values["weight"], at("weight")),
    ...(out === undefined ? {} : { out: readOutboundAddress(out, at("out")) }),
  };
}

function readText(value: unknown, where: string): string | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value === "string" || typeof value === "number") return String(value);
  throw usage(`${where}: not text`, "write one plain value");
}

function readTexts(value: unknown, where: string): readonly string[] {
  if (value === undefined || value === null) return [];
  const items: readonly unknown[] = Array.isArray(value) ? value : [value];
  return items.map((item) => readText(item, where) ?? "");
}

function readPairs(value: unknown, where: string): readonly string[] {
  if (value === undefined || value === null) return [];
  if (typeof value !== "object" || Array.isArray(value)) {
    throw usage(`${where}: not a mapping`, "write labels: {version: v2}");
  }
  return Object.entries(value).map(([key, item]) => `${key}=${readText(item, where) ?? ""}`);
}

function readWeight(value: unknown, where: string): number {
  if (value === undefined || value === null) return 100;
  if (typeof value === "number" && Number.isInteger(value) && value >= 1 && value <= 1000) {
    return value;
  }
  throw usage(`${where}: "${value}" is not a weight`, "give a number from 1 to 1000");
}
