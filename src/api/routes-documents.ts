/** Documents and their history. */
import type { Kind } from "../config/resource.ts";
import { API_VERSIONS } from "../config/resource.ts";
import { type ApplyResult, apply, remove, rollback } from "../control/apply.ts";
import { diffOf, diffRevisions } from "../control/diff.ts";
import { appendAudit } from "../store/audit.ts";
import {
  allResources,
  findResources,
  lastRevision,
  listResources,
  listRevisions,
  revision,
  revisionsSince,
  storedResource,
} from "../store/revisions.ts";
import type { Revision, StoredResource } from "../store/rows.ts";
import type { ApplyAnswer, DiffAnswer, ResourceAnswer, RevisionAnswer } from "./answers.ts";
import { flagOf, integerOf, recordsOf, shortText, textsOf } from "./body.ts";
import { type Event, eventStream } from "./events.ts";
import { numberedPage, pageOf, pageRequest } from "./page.ts";
import { refusal } from "./problem.ts";
import { invalid } from "./query.ts";
import type { Call, Route } from "./route.ts";

/** Makes a change and its audit entry one transaction. */
function changed(call: Call, action: string, change: () => ApplyResult): ApplyAnswer {
  const { store, now } = call.parts;
  const result = store.write(() => {
    const made = change();
    if (!made.dryRun && made.changes.length > 0) {
      appendAudit(store, {
        t: now(),
        actor: call.actor,
        action,
        subject: `revision ${made.revision}`,
        detail: { changes: made.changes.map(({ key, op }) => ({ key, op })) },
      });
    }
    return made;
  });
  return { ...result, changes: result.changes.map(diffOf) };
}

/** Author, message, base and dryRun, from the body. */
function optionsOf({ actor, body }: Call) {
  const message = shortText(body, "message");
  const base = integerOf(body, "base");
  return {
    author: actor,
    dryRun: flagOf(body, "dryRun"),
    ...(message === undefined ? {} : { message }),
    ...(base === undefined ? {} : { base }),
  };
}

function answerOf({ parts }: Call): (row: StoredResource) => ResourceAnswer {
  const statuses = parts.conditions.current();
  return ({ key, origin, revision, t, resource }) => {
    const status = statuses.get(key);
    return { key, origin, revision, t, resource, ...(status === undefined ? {} : { status }) };
  };
}

function kindOf(call: Call): Kind {
  const asked = call.param("kind");
  const kind = Object.keys(API_VERSIONS).find((known) => known === asked);
  if (kind !== undefined) return kind as Kind;
  const known = Object.keys(API_VERSIONS).join(", ");
  throw refusal(404, "unknown_kind", `there is no kind ${asked}`, `use one of ${known}`);
}

/** Mesh belongs to no namespace: its second path segment is its name. */
function keyOf(call: Call): string {
  const parts = [kindOf(call), call.param("ns"), call.param("name")];
  return parts.filter((part) => part !== "").join("/");
}

function one(call: Call): ResourceAnswer {
  const key = keyOf(call);
  const found = storedResource(call.parts.store, key);
  if (found !== undefined) return answerOf(call)(found);
  throw refusal(404, "not_found", `there is no ${key}`, "list what there is: weft get");
}

function list(call: Call) {
  if (call.flag("watch")) return watch(call);
  const { store } = call.parts;
  const { after, limit } = pageRequest(call);
  const namespace = call.param("ns");
  const found =
    call.param("kind") === ""
      ? listResources(store, after, limit + 1)
      : findResources(store, {
          kind: kindOf(call),
          after,
          limit: limit + 1,
          ...(namespace === "" ? {} : { namespace }),
        });
  return pageOf(found, limit, (row) => row.key, answerOf(call));
}

/** First every document, then each change of one. */
function watch(call: Call): Response {
  const { store } = call.parts;
  const kind = call.param("kind");
  const namespace = call.param("ns");
  const prefix = kind === "" ? "" : namespace === "" ? `${kind}/` : `${kind}/${namespace}/`;
  let seen: number | undefined;
  return eventStream(call.streams, call.signal, () => {
    const last = lastRevision(store);
    if (seen === undefined) {
      seen = last;
      const items = allResources(store).filter((row) => row.key.startsWith(prefix));
      const data = { revision: last, items: items.map(answerOf(call)) };
      return [{ event: "list", id: String(last), data }];
    }
    if (last === seen) return [];
    const events: Event[] = revisionsSince(store, seen).flatMap(({ number, changes }) =>
      changes
        .filter(({ key }) => key.startsWith(prefix))
        .map(({ key, op, after }) => ({
          event: op,
          id: String(number),
          data: { key, revision: number, resource: after ?? null },
        })),
    );
    seen = last;
    return events;
  });
}

function revisionAnswer(row: Revision, whole: boolean): RevisionAnswer {
  const { number, hash, author, message, t, busRev } = row;
  const changes = row.changes.map((change) =>
    whole ? diffOf(change) : { key: change.key, op: change.op },
  );
  return { revision: number, hash, author, message, t, busRev, changes };
}

function oneRevision(call: Call): RevisionAnswer {
  const asked = call.param("number");
  const found = /^\d{1,15}$/.test(asked) ? revision(call.parts.store, Number(asked)) : undefined;
  if (found !== undefined) return revisionAnswer(found, true);
  const fix = "list them: weft history";
  throw refusal(404, "unknown_revision", `there is no revision ${asked}`, fix);
}

function history(call: Call) {
  const { after, limit } = numberedPage(call);
  const found = listRevisions(call.parts.store, after, limit + 1);
  const key = (row: Revision) => String(row.number);
  return pageOf(found, limit, key, (row) => revisionAnswer(row, false));
}

function diff(call: Call): DiffAnswer {
  const { store } = call.parts;
  const from = call.count("from");
  const to = call.count("to") ?? lastRevision(store);
  if (from !== undefined) return { from, to, items: diffRevisions(store, from, to) };
  throw invalid("from is missing", "name the older revision: ?from=3");
}

const CHANGE = { message: "string?", base: "integer?", dryRun: "boolean?" } as const;
const PAGES = { cursor: "string", limit: "integer" } as const;
const LIST = { ...PAGES, watch: "boolean" } as const;

export const DOCUMENT_ROUTES: readonly Route[] = [
  {
    method: "POST",
    path: "/v1/apply",
    access: "admin",
    summary: "Make documents part of the mesh, all or nothing",
    body: { sources: "objects", prune: "boolean?", lenient: "boolean?", ...CHANGE },
    handle: (call) =>
      changed(call, "apply", () =>
        apply(call.parts.state, recordsOf(call.body, "sources", ["name", "text"]), {
          ...optionsOf(call),
          prune: flagOf(call.body, "prune"),
          lenient: flagOf(call.body, "lenient"),
        }),
      ),
  },
  {
    method: "POST",
    path: "/v1/delete",
    access: "admin",
    summary: "Delete documents by key, all or nothing",
    body: { keys: "strings", cascade: "boolean?", ...CHANGE },
    handle: (call) =>
      changed(call, "delete", () =>
        remove(call.parts.state, textsOf(call.body, "keys") ?? [], {
          ...optionsOf(call),
          cascade: flagOf(call.body, "cascade"),
        }),
      ),
  },
  {
    method: "POST",
    path: "/v1/rollback",
    access: "admin",
    summary: "Make an earlier revision current again, as a new revision",
    body: { to: "integer", ...CHANGE },
    handle: (call) =>
      changed(call, "rollback", () =>
        rollback(call.parts.state, integerOf(call.body, "to") ?? -1, optionsOf(call)),
      ),
  },
  ...["/v1/resources", "/v1/resources/{kind}", "/v1/resources/{kind}/{ns}"].map(
    (path): Route => ({
      ...{ method: "GET", path, access: "admin", summary: "List documents", query: LIST },
      // `Mesh/mesh`: one document under two segments.
      handle: (call) =>
        call.param("kind") === "Mesh" && call.param("ns") ? one(call) : list(call),
    }),
  ),
  {
    method: "GET",
    path: "/v1/resources/{kind}/{ns}/{name}",
    access: "admin",
    summary: "Show a document",
    handle: one,
  },
  ...["/v1/resources/{kind}/{ns}", "/v1/resources/{kind}/{ns}/{name}"].map(
    (path): Route => ({
      ...{ method: "DELETE", path, access: "admin", summary: "Delete a document" },
      query: { cascade: "boolean", message: "string", dryRun: "boolean", base: "integer" },
      handle: (call) => {
        const message = call.query("message");
        const base = call.count("base");
        return changed(call, "delete", () =>
          remove(call.parts.state, [keyOf(call)], {
            author: call.actor,
            cascade: call.flag("cascade"),
            dryRun: call.flag("dryRun"),
            ...(message === undefined ? {} : { message }),
            ...(base === undefined ? {} : { base }),
          }),
        );
      },
    }),
  ),
  {
    method: "GET",
    path: "/v1/revisions",
    access: "admin",
    summary: "List revisions, the newest first",
    query: PAGES,
    handle: history,
  },
  {
    method: "GET",
    path: "/v1/revisions/{number}",
    access: "admin",
    summary: "Show a revision with its documents before and after",
    handle: oneRevision,
  },
  {
    method: "GET",
    path: "/v1/diff",
    access: "admin",
    summary: "Show what changed between two revisions; `to` is the newest unless given",
    query: { from: "integer", to: "integer" },
    handle: diff,
  },
];
