/** `weft check`: what is wrong, and what to do about it. Exit 1 when something is. */
import { X509Certificate } from "node:crypto";
import type {
  ProxyAnswer,
  ResourceAnswer,
  StatusAnswer,
  TrustBundleAnswer,
} from "../../src/api/answers.ts";
import type { PortMtlsOf } from "../../src/config/port-mtls.ts";
import { EXIT, Failure } from "../../src/error.ts";
import { VERSION } from "../version.ts";
import { type Client, getAll } from "./client.ts";
import { storedMtls } from "./mtls.ts";
import type { Session, Typed } from "./session.ts";
import { age } from "./table.ts";
import { paint, type Terminal } from "./terminal.ts";
import { typedFormat } from "./typed.ts";

export type Verdict = "success" | "warning" | "error";

export interface Check {
  /** Stable. */
  readonly id: string;
  readonly description: string;
  readonly result: Verdict;
  /** What was found, when it is not well. */
  readonly error?: string;
  /** The next step. */
  readonly hint?: string;
}

export interface Category {
  readonly categoryName: string;
  readonly checks: readonly Check[];
}

/** What is looked at, gathered first. */
export interface Findings {
  readonly status: StatusAnswer;
  readonly services: readonly ResourceAnswer[];
  /** Services that have an endpoint by document. */
  readonly declared: ReadonlySet<string>;
  readonly mtls: PortMtlsOf;
  /** When each certificate of the trust bundle ends, unix milliseconds. */
  readonly roots: readonly number[];
  readonly now: number;
  readonly version: string;
}

const DAY_MS = 86_400_000;
const ROOT_WARNING_MS = 60 * DAY_MS;
/** A certificate is renewed at half its life; one with less left than this has not been. */
const LEAF_WARNING_SHARE = 0.3;

export async function check(session: Session, typed: Typed): Promise<number> {
  const format = typedFormat(typed, ["table", "short", "json"]);
  const categories = await examine(session);
  const success = categories.every(({ checks }) =>
    checks.every(({ result }) => result !== "error"),
  );
  if (format === "json") {
    session.terminal.out(`${JSON.stringify({ success, categories }, null, 2)}\n`);
  } else print(session.terminal, categories, format === "short", success);
  return success ? EXIT.ok : EXIT.failed;
}

async function examine(session: Session): Promise<readonly Category[]> {
  try {
    const client = await session.client();
    const findings = await gather(client, session.terminal.now());
    const reached = ok("reachable", `answers at ${client.url}`);
    return [
      { categoryName: "control-plane", checks: [reached, ...controlplaneChecks(findings)] },
      { categoryName: "documents", checks: documentChecks(findings) },
      { categoryName: "services", checks: serviceChecks(findings) },
      { categoryName: "proxies", checks: proxyChecks(findings) },
    ];
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    const checks = [bad("reachable", "answers", error.message, error.fix)];
    return [{ categoryName: "control-plane", checks }];
  }
}

async function gather(client: Client, now: number): Promise<Findings> {
  const [status, services, workloads, mtls, trust] = await Promise.all([
    client.get<StatusAnswer>("/v1/status"),
    getAll<ResourceAnswer>(client, "/v1/resources/Service"),
    getAll<ResourceAnswer>(client, "/v1/resources/Workload"),
    storedMtls(client),
    client.get<TrustBundleAnswer>("/v1/trust-bundle"),
  ]);
  const declared = workloads.flatMap(({ resource }) =>
    resource.kind === "Workload" ? [`${resource.metadata.namespace}/${resource.spec.service}`] : [],
  );
  return {
    ...{ status, services, mtls, now, version: VERSION },
    declared: new Set(declared),
    roots: trust.bundle.map(certificateExpiry),
  };
}

function ok(id: string, description: string): Check {
  return { id, description, result: "success" };
}

function bad(id: string, description: string, error: string, hint: string): Check {
  return { id, description, result: "error", error, hint };
}

function doubtful(id: string, description: string, error: string, hint: string): Check {
  return { id, description, result: "warning", error, hint };
}

export function controlplaneChecks({ status, roots, now, version }: Findings): readonly Check[] {
  const { bus } = status;
  const first = Math.min(...roots);
  return [
    status.version === version
      ? ok("version", `has this command's version, ${version}`)
      : doubtful(
          "version",
          "has this command's version",
          `it runs ${status.version}, this is ${version}`,
          "upgrade the older one",
        ),
    bus.status === "up" && bus.problem === undefined
      ? ok("bus", "is connected to its bus")
      : bad(
          "bus",
          "is connected to its bus",
          bus.problem?.reason ?? `${bus.url} does not answer`,
          bus.problem?.fix ?? "proxies keep what they have; see the control plane's log",
        ),
    status.publishedRevision >= status.revision
      ? ok("published", `has published revision ${status.revision}`)
      : bad(
          "published",
          "has published the newest revision",
          `revision ${status.revision} is committed, ${status.publishedRevision} is published`,
          "it follows when the bus is up",
        ),
    first > now + ROOT_WARNING_MS
      ? ok("root", `root certificate is valid for ${age(first - now)}`)
      : doubtful(
          "root",
          "root certificate is valid for long",
          first > now ? `it ends in ${age(first - now)}` : "it has ended",
          "plan a new root",
        ),
  ];
}

export function documentChecks({ status: { conditions } }: Findings): readonly Check[] {
  const told = (one: StatusAnswer["conditions"][number]) =>
    `${one.key} ${one.reason}: ${one.message}`;
  return [
    conditions.length === 0
      ? ok("conditions", "mean what exists")
      : doubtful(
          "conditions",
          "mean what exists",
          conditions.slice(0, 3).map(told).join("; "),
          conditions.length > 3
            ? `and ${conditions.length - 3} more: weft status -o json`
            : "weft get KIND NAME -o yaml shows its status",
        ),
  ];
}

export function serviceChecks(findings: Findings): readonly Check[] {
  const { status, services, declared } = findings;
  if (services.length === 0) {
    return [
      doubtful(
        "exist",
        "there are services",
        "none is declared or registered",
        "start a proxy with --service and --app, or apply a Service",
      ),
    ];
  }
  const served = new Set(
    status.proxies
      .filter((proxy) => proxy.state !== "down" && proxy.health !== "unhealthy")
      .map(({ namespace, service }) => `${namespace}/${service}`),
  );
  const names = services.map(
    ({ resource: { metadata } }) => `${metadata.namespace}/${metadata.name}`,
  );
  const empty = names.filter((name) => !served.has(name) && !declared.has(name));
  return [
    empty.length === 0
      ? ok("endpoints", `all ${names.length} have an endpoint`)
      : doubtful(
          "endpoints",
          "all have an endpoint",
          `none for ${some(empty)}`,
          "start an instance: weft sidecar --service NAME --app PORT",
        ),
    mtlsCheck(findings),
  ];
}

/** Ports that take plaintext too, by the document that lets them. */
function mtlsCheck({ services, mtls }: Findings): Check {
  const open = new Map<string, string[]>();
  for (const { resource } of services) {
    if (resource.kind !== "Service") continue;
    const { namespace, name } = resource.metadata;
    for (const { port } of resource.spec.ports) {
      const { mode, by = "" } = mtls(namespace, name, port);
      if (mode === "STRICT") continue;
      open.set(by, [...(open.get(by) ?? []), `${namespace}/${name}:${port}`]);
    }
  }
  if (open.size === 0) return ok("mutual-tls", "are reached by mutual TLS only");
  return doubtful(
    "mutual-tls",
    "are reached by mutual TLS only",
    `plaintext too: ${[...open].map(([by, ports]) => `${some(ports)} by ${by}`).join("; ")}`,
    'take it back when weft_requests_total{direction="inbound",tls="none"} no longer rises',
  );
}

export function proxyChecks({ status, now, version }: Findings): readonly Check[] {
  const { proxies } = status;
  if (proxies.length === 0) {
    const hint = "start one: weft sidecar --service cart --app 8080 --token-file FILE";
    return [doubtful("joined", "have joined", "none has", hint)];
  }
  const living = proxies.filter(({ state }) => state !== "down");
  const of = (
    wanted: (proxy: ProxyAnswer) => boolean,
    among: readonly ProxyAnswer[] = living,
  ): readonly ProxyAnswer[] => among.filter(wanted);
  const expiring = ({ certificateIssued: from, certificateExpires: to }: ProxyAnswer) =>
    from !== null && to !== null && to - now < (to - from) * LEAF_WARNING_SHARE;
  const expired = (proxy: ProxyAnswer) =>
    proxy.certificateExpires !== null && proxy.certificateExpires <= now;
  return [
    judge(
      "registered",
      "are registered",
      of(({ state }) => state !== "up", proxies),
      {
        error: "not registered",
        hint: "gone on purpose? they leave this list in time; else look at their logs",
        severity: "warning",
      },
    ),
    judge(
      "healthy",
      "are healthy",
      of(({ health }) => health === "unhealthy"),
      {
        error: "the application does not answer",
        hint: "is it listening where --app says?",
      },
    ),
    judge(
      "current",
      `have revision ${status.revision}`,
      of((p) => p.revision < status.revision),
      {
        error: "behind",
        hint: "weft status -w shows whether they follow; do they reach the bus?",
        severity: "warning",
      },
    ),
    judge(
      "accepted",
      "have accepted their documents",
      of(({ refused }) => refused.length > 0),
      {
        error: "refused a document",
        hint: "weft status -o json shows which and why",
      },
    ),
    judge("certificates", "have valid certificates", of(expired), {
      error: "expired",
      hint: "do they reach the control plane's API? look at their logs",
    }),
    judge(
      "renewal",
      "renew their certificates",
      of((p) => expiring(p) && !expired(p)),
      {
        error: "long overdue",
        hint: "do they reach the control plane's API? look at their logs",
        severity: "warning",
      },
    ),
    judge(
      "versions",
      `run version ${version}`,
      of((proxy) => proxy.version !== version),
      {
        error: "another version",
        hint: "restart them with this executable",
        severity: "warning",
      },
    ),
  ];
}

function judge(
  id: string,
  description: string,
  wrong: readonly ProxyAnswer[],
  say: { readonly error: string; readonly hint: string; readonly severity?: "warning" | "error" },
): Check {
  if (wrong.length === 0) return ok(id, description);
  const names = wrong.map(
    ({ namespace, service, instance }) => `${namespace}/${service} ${instance}`,
  );
  const error = `${say.error}: ${some(names)}`;
  return say.severity === "warning"
    ? doubtful(id, description, error, say.hint)
    : bad(id, description, error, say.hint);
}

function some(names: readonly string[]): string {
  const shown = names.slice(0, 5).join(", ");
  return names.length > 5 ? `${shown} and ${names.length - 5} more` : shown;
}

const MARKS = { success: "√", warning: "‼", error: "×" } as const;
const COLOURS = { success: "green", warning: "yellow", error: "red" } as const;

function print(
  terminal: Terminal,
  categories: readonly Category[],
  short: boolean,
  success: boolean,
): void {
  for (const { categoryName, checks } of categories) {
    const shown = checks.filter(({ result }) => !short || result !== "success");
    if (shown.length === 0) continue;
    terminal.out(`${categoryName}\n${"-".repeat(categoryName.length)}\n`);
    for (const { result, description, error, hint } of shown) {
      terminal.out(`${paint(terminal, COLOURS[result], MARKS[result])} ${description}\n`);
      if (error !== undefined) terminal.out(`    ${error}\n`);
      if (hint !== undefined) terminal.out(`    ${paint(terminal, "dim", "hint:")} ${hint}\n`);
    }
    terminal.out("\n");
  }
  if (short) return;
  const mark = success ? paint(terminal, "green", "√") : paint(terminal, "red", "×");
  terminal.out(`Status check results are ${mark}\n`);
}

function certificateExpiry(pem: string): number {
  return Date.parse(new X509Certificate(pem).validTo);
}
