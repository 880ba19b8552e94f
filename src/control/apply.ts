/**
 * The only way documents change: read, check the whole resulting set, commit one revision.
 *
 * A change that is refused writes nothing; a change that changes nothing makes no revision.
 */
import { PROTOCOLS } from "../config/fields.ts";
import { parseSources } from "../config/parse.ts";
import {
  type Issue,
  type ParsedResource,
  type Resource,
  resourceKey,
  type ServiceResource,
  type Source,
  WEFT_VERSION,
} from "../config/resource.ts";
import { validateSet } from "../config/validate.ts";
import { EXIT, Failure } from "../error.ts";
import { lastRevision, putRevision, revisionsSince, storedResource } from "../store/revisions.ts";
import type { Change } from "../store/rows.ts";
import type { Store } from "../store/store.ts";
import { changesBetween, currentSet, type DocumentSet, type Held, setAt } from "./changes.ts";
import { Invalid } from "./invalid.ts";
import { referencesOf } from "./references.ts";

/** What every change depends on. */
export interface ControlState {
  readonly store: Store;
  readonly trustDomain: string;
  readonly now: () => number;
  /** Refuses a set that could not be published, by throwing a Failure. */
  readonly check?: (resources: readonly Resource[]) => void;
  /**
   * The documents are to be published, once the current transaction is over: it may be part of a
   * bigger one. Must not throw.
   */
  readonly committed: (revision: number) => void;
}

export interface ChangeOptions {
  readonly author: string;
  readonly message?: string;
  /** The revision the author looked at: refused when a touched document changed since. */
  readonly base?: number;
  /** Check and say what would change, without changing it. */
  readonly dryRun?: boolean;
}

export interface ApplyOptions extends ChangeOptions {
  /** Delete every document that is not among the sources; registered services stay. */
  readonly prune?: boolean;
  /** Accept references to what does not exist, and routes that can never match. */
  readonly lenient?: boolean;
}

export interface ApplyResult {
  /** The newest revision; not a new one when nothing changed or for a dry run. */
  readonly revision: number;
  readonly changes: readonly Change[];
  readonly dryRun: boolean;
}

/**
 * Makes documents part of the mesh, all or nothing.
 *
 * @throws Invalid (422), Failure `stale` (409), `too_large` (413), `disk_full` (507).
 */
export function apply(
  state: ControlState,
  sources: readonly Source[],
  options: ApplyOptions,
): ApplyResult {
  const { resources, issues } = parseSources(sources);
  const wrong = [...issues, ...resources.flatMap(processIssues)];
  if (wrong.length > 0) throw new Invalid(wrong);
  // Whatever was to produce them failed; with prune it would empty the mesh.
  if (resources.length === 0) {
    throw new Failure("no_documents", "there is no document in what was sent", "send one or more", {
      status: 422,
      exit: EXIT.refused,
    });
  }
  const before = currentSet(state.store);
  const after = new Map(before);
  const named = new Set<string>();
  for (const { resource } of resources) {
    const key = resourceKey(resource);
    named.add(key);
    after.set(key, { resource, origin: "document" });
  }
  if (options.prune) {
    for (const [key, held] of before) {
      if (held.origin === "document" && !named.has(key)) after.delete(key);
    }
  }
  const unsound = validateSet(resourcesOf(after), resources, {
    lenient: options.lenient ?? false,
    trustDomain: state.trustDomain,
    // Faults accepted before must not block changes elsewhere.
    before: resourcesOf(before),
  });
  if (unsound.length > 0) throw new Invalid(unsound);
  state.check?.(resourcesOf(after));
  return commit(state, changesBetween(before, after), options);
}

/** A Process belongs to the host it runs on. */
function processIssues(parsed: ParsedResource): Issue[] {
  if (parsed.resource.kind !== "Process") return [];
  return [
    {
      source: parsed.source,
      ...parsed.at(["kind"]),
      path: "kind",
      value: "Process",
      reason: "a Process is run by weft up; the control plane does not run programs",
      fix: "start it on its host: weft up FILE",
      code: "process_not_stored",
    },
  ];
}

function resourcesOf(set: DocumentSet): Resource[] {
  return [...set.values()].map((held) => held.resource);
}

export interface DeleteOptions extends ChangeOptions {
  /** Also delete the documents that refer to the deleted ones. */
  readonly cascade?: boolean;
}

/**
 * Deletes documents by key, all or nothing.
 *
 * @throws Failure `not_found` (404), `referenced` (409), `stale` (409), `disk_full` (507).
 */
export function remove(
  state: ControlState,
  keys: readonly string[],
  options: DeleteOptions,
): ApplyResult {
  const before = currentSet(state.store);
  for (const key of keys) {
    if (before.has(key)) continue;
    throw new Failure("not_found", `there is no ${key}`, "list what there is: weft get", {
      status: 404,
      exit: EXIT.refused,
    });
  }
  const doomed = new Set(keys);
  const referring = spread(before, doomed);
  if (referring.length > 0 && options.cascade !== true) {
    throw new Failure(
      "referenced",
      `${keys.join(", ")} is referred to by ${referring.join(", ")}`,
      "delete those first, or all of them together with --cascade",
      { status: 409, exit: EXIT.refused },
    );
  }
  const after = new Map([...before].filter(([key]) => !doomed.has(key)));
  return commit(state, changesBetween(before, after), options);
}

/** Adds to `doomed` what refers to it, until nothing more does; returns what was added. */
function spread(set: DocumentSet, doomed: Set<string>): string[] {
  const added: string[] = [];
  for (let size = -1; size !== doomed.size; ) {
    size = doomed.size;
    for (const [key, held] of set) {
      if (doomed.has(key) || !referencesOf(held.resource).some((at) => doomed.has(at))) continue;
      doomed.add(key);
      added.push(key);
    }
  }
  return added;
}

/**
 * Makes the documents of an earlier revision current again, as a new revision. Services that
 * exist only because a workload registered them stay: the workload is still there.
 *
 * @throws Failure `unknown_revision` (404), `stale` (409), `disk_full` (507).
 */
export function rollback(state: ControlState, to: number, options: ChangeOptions): ApplyResult {
  const before = currentSet(state.store);
  const after = setAt(state.store, to);
  for (const [key, held] of before) {
    if (held.origin === "registration" && !after.has(key)) after.set(key, held);
  }
  return commit(state, changesBetween(before, after), {
    ...options,
    message: options.message ?? `rollback to revision ${to}`,
  });
}

/** As many as one registration may name: workloads must not make a Service grow without end. */
const REGISTERED_PORTS_MAX = 64;

export interface RegisteredPort {
  readonly port: number;
  readonly protocol?: string;
}

/**
 * Makes sure that the service of a registering workload exists. One that a registration made
 * before gains ports it lacks; one from a document stays as it is.
 */
export function ensureService(
  state: ControlState,
  name: { readonly namespace: string; readonly service: string },
  ports: readonly RegisteredPort[],
): void {
  const key = `Service/${name.namespace}/${name.service}`;
  const found = storedResource(state.store, key);
  if (found?.origin === "document" || (found === undefined && ports.length === 0)) return;
  const known = found?.resource.kind === "Service" ? found.resource.spec.ports : [];
  const missing = ports.filter(({ port }) => known.every((at) => at.port !== port));
  if (missing.length === 0) return;
  if (known.length + missing.length > REGISTERED_PORTS_MAX) {
    throw new Failure(
      "too_many_ports",
      `workloads of ${name.namespace}/${name.service} have registered ${known.length} ports already`,
      "let them register the same ports, or write a Service document with those that are meant",
    );
  }
  const all = [...known, ...missing.map(servicePort)].sort((a, b) => a.port - b.port);
  const resource: ServiceResource = {
    apiVersion: WEFT_VERSION,
    kind: "Service",
    metadata: { name: name.service, namespace: name.namespace, labels: {} },
    spec: { ports: all },
  };
  const held: Held = { resource, origin: "registration" };
  const before = new Map(
    found === undefined ? [] : [[key, { resource: found.resource, origin: found.origin }]],
  );
  commit(state, changesBetween(before, new Map([[key, held]])), {
    author: "registration",
    message: `${name.namespace}/${name.service} registered`,
  });
}

function servicePort({ port, protocol }: RegisteredPort): ServiceResource["spec"]["ports"][number] {
  const known = PROTOCOLS.find((name) => name === protocol);
  return known === undefined ? { port } : { port, protocol: known };
}

function commit(
  state: ControlState,
  changes: readonly Change[],
  options: ChangeOptions,
): ApplyResult {
  const { store } = state;
  const dryRun = options.dryRun ?? false;
  if (options.base !== undefined) requireFresh(store, changes, options.base);
  if (changes.length === 0 || dryRun) return { revision: lastRevision(store), changes, dryRun };
  const { number } = putRevision(store, {
    author: options.author,
    message: options.message ?? "",
    t: state.now(),
    changes,
  });
  state.committed(number);
  return { revision: number, changes, dryRun };
}

/** The base is compared per document: others may have changed since. */
function requireFresh(store: Store, changes: readonly Change[], base: number): void {
  const last = lastRevision(store);
  const touched = new Set(
    revisionsSince(store, base).flatMap((revision) => revision.changes.map(({ key }) => key)),
  );
  const stale = changes.filter(({ key }) => touched.has(key)).map(({ key }) => key);
  if (stale.length === 0 && base <= last) return;
  const what = stale.length === 0 ? `there is no revision ${base}` : `${stale.join(", ")} changed`;
  throw new Failure(
    "stale",
    `base ${base} is not current: ${what}; the newest revision is ${last}`,
    `look at what changed (weft diff ${Math.min(base, last)}) and apply again with base ${last}`,
    { status: 409, exit: EXIT.refused },
  );
}
