/**
 * What is not well with documents that were accepted all the same (`lenient`, or brought back by a
 * rollback), in the words of the Gateway API. A function of the whole set, so that it
 * is right after every change and every restart.
 */
import type { Finding } from "./findings.ts";
import { pathText, type Resource, resourceKey } from "./resource.ts";
import { findingsOf } from "./validate.ts";

export interface Condition {
  readonly type: "Accepted" | "ResolvedRefs" | "PartiallyInvalid";
  readonly status: "True" | "False";
  readonly reason: string;
  readonly message: string;
}

/** As the Gateway API writes it: a route has conditions for each parent. */
export interface ResourceStatus {
  readonly conditions?: readonly Condition[];
  readonly parents?: readonly {
    readonly parentRef: object;
    readonly controllerName: string;
    readonly conditions: readonly Condition[];
  }[];
}

const CONTROLLER = "weft.dev/controlplane";
const MESSAGES_MAX = 5;

const REASONS: Readonly<Record<string, string>> = {
  not_visible: "RefNotPermitted",
  unknown_service: "BackendNotFound",
  unknown_port: "BackendNotFound",
  unknown_subset: "BackendNotFound",
  shadowed: "Shadowed",
  no_backend: "NoBackend",
  no_weight: "NoBackend",
  conflict: "Conflicted",
};

/** By resource key; a document with which all is well has none. */
export function statusesOf(set: readonly Resource[], trustDomain: string) {
  const found = new Map<string, Finding[]>();
  for (const finding of findingsOf(set, { lenient: false, trustDomain })) {
    const key = resourceKey(finding.resource);
    const list = found.get(key);
    if (list === undefined) found.set(key, [finding]);
    else list.push(finding);
  }
  const statuses = new Map<string, ResourceStatus>();
  for (const [key, findings] of found) statuses.set(key, statusOf(findings));
  return statuses as ReadonlyMap<string, ResourceStatus>;
}

/** Those that say that something is wrong, each once. */
export function faultsOf({ conditions = [], parents = [] }: ResourceStatus): readonly Condition[] {
  const faults = [...conditions, ...parents.flatMap((parent) => parent.conditions)].filter(
    ({ type, status }) => (type === "PartiallyInvalid") === (status === "True"),
  );
  return faults.filter((fault, i) => faults.findIndex((each) => each.type === fault.type) === i);
}

function statusOf(findings: readonly Finding[]): ResourceStatus {
  const resource = (findings[0] as Finding).resource;
  if (resource.kind !== "HTTPRoute") {
    const missing = { unknown_service: "TargetNotFound", unknown_port: "TargetNotFound" };
    return { conditions: [condition("Accepted", findings, missing)] };
  }
  const within = (path: Finding["path"], name: string) => path.includes(name);
  const parentsOf = findings.filter(({ path }) => within(path, "parentRefs"));
  const refs = findings.filter(
    ({ path, code }) => within(path, "backendRefs") && code !== "no_weight",
  );
  const rest = findings.filter((each) => !parentsOf.includes(each) && !refs.includes(each));
  return {
    parents: resource.spec.parentRefs.map((parentRef, i) => {
      const own = parentsOf.filter(({ path }) => path[2] === i);
      const missing = { unknown_service: "NoMatchingParent", unknown_port: "NoMatchingParent" };
      return {
        parentRef,
        controllerName: CONTROLLER,
        conditions: [
          condition("Accepted", own, missing),
          condition("ResolvedRefs", refs),
          ...(rest.length === 0 ? [] : [condition("PartiallyInvalid", rest)]),
        ],
      };
    }),
  };
}

function condition(
  type: Condition["type"],
  findings: readonly Finding[],
  reasons: Readonly<Record<string, string>> = {},
): Condition {
  const [first] = findings;
  if (first === undefined) return { type, status: "True", reason: type, message: "" };
  const messages = findings
    .slice(0, MESSAGES_MAX)
    .map(({ path, reason, fix }) => `${pathText(path)}: ${reason} — ${fix}`);
  const more = findings.length - messages.length;
  return {
    type,
    status: type === "PartiallyInvalid" ? "True" : "False",
    reason: reasons[first.code] ?? REASONS[first.code] ?? "Invalid",
    message: messages.join("; ") + (more > 0 ? `; and ${more} more` : ""),
  };
}
