/** State of the mesh, backup, audit, and what monitoring asks for. */
import { createReadStream, rmSync } from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import { appendAudit, listAudit } from "../store/audit.ts";
import { writeBackup } from "../store/backup.ts";
import { forgetWorkloads, listWorkloads, workload } from "../store/workloads.ts";
import { eventStream } from "./events.ts";
import { numberedPage, pageOf, pageRequest } from "./page.ts";
import { refusal } from "./problem.ts";
import type { ApiParts, Call, Route } from "./route.ts";
import { proxyAnswers, statusAnswer } from "./status.ts";

function status(call: Call) {
  if (!call.flag("watch")) return statusAnswer(call.parts);
  let before = "";
  return eventStream(call.streams, call.signal, () => {
    const answer = statusAnswer(call.parts);
    // Ages change at every look and are no news.
    const text = JSON.stringify(answer, (key, value) => (key === "leaseAgeMs" ? 0 : value));
    if (text === before) return [];
    before = text;
    return [{ event: "status", data: answer }];
  });
}

function workloads(call: Call) {
  const { after, limit } = pageRequest(call);
  const rows = listWorkloads(call.parts.store, after, limit + 1);
  const page = pageOf(
    rows,
    limit,
    (row) => row.instance,
    (row) => row,
  );
  return { ...page, items: proxyAnswers(call.parts, page.items) };
}

/** The instance has to join again; certificate and bus credentials it has end with their time. */
function forget(call: Call): undefined {
  const { store, registry, now } = call.parts;
  const instance = call.param("instance");
  const row = workload(store, instance);
  if (row === undefined) {
    throw refusal(404, "not_found", `there is no instance ${instance}`, "list them: weft status");
  }
  store.write(() => {
    forgetWorkloads(store, [instance]);
    const { namespace, service, identity } = row;
    const subject = `${namespace}/${service}/${instance}`;
    const entry = { t: now(), actor: call.actor, action: "workload.forget", subject };
    appendAudit(store, { ...entry, detail: { identity } });
  });
  registry.forget(instance);
}

function backup(call: Call): Response {
  const { parts, actor } = call;
  const keys = call.flag("keys");
  const path = join(parts.dataFolder, `backup-${crypto.randomUUID()}.tmp`);
  appendAudit(parts.store, {
    t: parts.now(),
    actor,
    action: "backup",
    subject: keys ? "with keys" : "without keys",
  });
  writeBackup(parts.store, path, keys ? parts.dataFolder : undefined);
  const file = createReadStream(path);
  // The open descriptor keeps the bytes; the name must not outlive the answer.
  file.once("open", () => rmSync(path, { force: true }));
  return new Response(Readable.toWeb(file) as ReadableStream<Uint8Array>, {
    headers: {
      "content-type": "application/vnd.sqlite3",
      "content-disposition": 'attachment; filename="weft.backup"',
      "cache-control": "no-store",
    },
  });
}

/** https://prometheus.io/docs/prometheus/latest/http_sd/ */
function scrapeTargets({ parts }: Call) {
  return parts.registry.workloads().flatMap(({ registration, namespace, service, instance }) => {
    if (registration.metrics === undefined) return [];
    const labels = { weft_namespace: namespace, weft_service: service, weft_instance: instance };
    return [{ targets: [registration.metrics], labels }];
  });
}

/** What keeps the control plane from its work; [] when it is ready. */
export function unready(parts: ApiParts): string[] {
  const missing: string[] = [];
  if (!parts.store.present()) {
    missing.push("store: the file was deleted; stop, then run: weft restore BACKUP");
  }
  const { problem } = parts.publisher;
  if (problem !== undefined) missing.push(`bus: ${problem.message}; ${problem.fix}`);
  return missing;
}

function text(body: string, status = 200): Response {
  return new Response(body, { status, headers: { "content-type": "text/plain; charset=utf-8" } });
}

export const OPERATE_ROUTES: readonly Route[] = [
  {
    method: "GET",
    path: "/v1/status",
    access: "admin",
    summary: "Revision, bus, and what every proxy runs",
    query: { watch: "boolean" },
    handle: status,
  },
  {
    method: "GET",
    path: "/v1/workloads",
    access: "admin",
    summary: "List instances that joined",
    query: { cursor: "string", limit: "integer" },
    handle: workloads,
  },
  {
    method: "DELETE",
    path: "/v1/workloads/{instance}",
    access: "admin",
    summary: "End an instance's membership: it is not renewed, and has to join again",
    status: 204,
    handle: forget,
  },
  {
    method: "GET",
    path: "/v1/backup",
    access: "admin",
    summary: "The whole state as one file; with keys=true including the private keys",
    query: { keys: "boolean" },
    handle: backup,
  },
  {
    method: "GET",
    path: "/v1/audit",
    access: "admin",
    summary: "List who did what, the oldest first",
    query: { cursor: "string", limit: "integer" },
    handle: (call) => {
      const { after = 0, limit } = numberedPage(call);
      const found = listAudit(call.parts.store, after, limit + 1);
      return pageOf(
        found,
        limit,
        (row) => String(row.seq),
        (row) => ({ ...row, detail: JSON.parse(row.detail) as unknown }),
      );
    },
  },
  {
    method: "GET",
    path: "/v1/sd/prometheus",
    access: "admin",
    summary: "Scrape targets for Prometheus' http_sd_configs",
    handle: scrapeTargets,
  },
  {
    method: "GET",
    path: "/metrics",
    access: "admin",
    summary: "Metrics of the control plane, Prometheus text format",
    handle: ({ parts }) =>
      new Response(parts.metrics.render(), {
        headers: { "content-type": "text/plain; version=0.0.4; charset=utf-8" },
      }),
  },
  {
    method: "GET",
    path: "/healthz",
    access: "open",
    summary: "Whether the process answers",
    handle: () => text("ok\n"),
  },
  {
    method: "GET",
    path: "/readyz",
    access: "open",
    summary: "Whether it can do its work; 503 says what is missing",
    handle: ({ parts }) => {
      const missing = unready(parts);
      if (missing.length === 0) return text("ready\n");
      return text(`not ready: ${missing.join("; ")}\n`, 503);
    },
  },
];
