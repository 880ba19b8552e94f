/** `weft status`: the mesh on one screen. */
import type { ProxyAnswer, StatusAnswer } from "../../src/api/answers.ts";
import { EXIT } from "../../src/error.ts";
import { printListing, watch } from "./list.ts";
import type { Session, Typed } from "./session.ts";
import { age, type Column } from "./table.ts";
import { paint, type Terminal } from "./terminal.ts";
import { type Format, LIST_FORMATS, typedFormat, typedToggle } from "./typed.ts";

export async function status(session: Session, typed: Typed): Promise<number> {
  const format = typedFormat(typed, LIST_FORMATS);
  const client = await session.client();
  const show = async (terminal: Terminal) =>
    printStatus(terminal, await client.get<StatusAnswer>("/v1/status"), format);
  if (typedToggle(typed, "watch")) await watch(session.terminal, show);
  await show(session.terminal);
  return EXIT.ok;
}

function printStatus(terminal: Terminal, answer: StatusAnswer, format: Format): void {
  if (format === "table" || format === "wide") {
    const { bus, revision, publishedRevision } = answer;
    const behind = publishedRevision < revision ? ` (${publishedRevision} published)` : "";
    const link = bus.status === "up" ? "up" : paint(terminal, "red", "down");
    terminal.err(
      `control plane ${answer.version}  trust domain ${answer.trustDomain}  ` +
        `revision ${revision}${behind}  bus ${link}\n`,
    );
    if (bus.problem !== undefined) terminal.err(`${bus.problem.reason}: ${bus.problem.fix}\n`);
    for (const { key, reason, message } of answer.conditions) {
      terminal.err(`${key} ${paint(terminal, "yellow", reason)}: ${message}\n`);
    }
  }
  printListing(
    terminal,
    {
      columns: columns(terminal, answer),
      rows: answer.proxies,
      nameOf: ({ namespace, service, instance }) => `${namespace}.${service}.${instance}`,
      value: answer,
      empty: "no proxies have joined; weft sidecar starts one",
    },
    format,
  );
}

function columns(terminal: Terminal, status: StatusAnswer): readonly Column<ProxyAnswer>[] {
  const now = terminal.now();
  return [
    { title: "NAMESPACE", text: ({ namespace }) => namespace },
    { title: "SERVICE", text: ({ service }) => service },
    { title: "INSTANCE", text: ({ instance }) => instance },
    { title: "STATE", text: (proxy) => stateOf(terminal, proxy) },
    { title: "REVISION", text: (proxy) => revisionOf(terminal, proxy, status) },
    { title: "SEEN", text: ({ leaseAgeMs }) => (leaseAgeMs === null ? "" : age(leaseAgeMs)) },
    { title: "CERT", text: (proxy) => certificateOf(terminal, proxy, now) },
    { title: "ADDRESS", text: addressOf },
    { title: "VERSION", text: ({ version }) => version, wide: true },
    { title: "LOCALITY", text: ({ locality }) => locality, wide: true },
    {
      title: "LABELS",
      text: ({ labels }) =>
        Object.entries(labels)
          .map(([key, value]) => `${key}=${value}`)
          .join(","),
      wide: true,
    },
    { title: "IDENTITY", text: ({ identity }) => identity, wide: true },
  ];
}

/** "" while it is not registered. */
function addressOf({ address, meshPort }: ProxyAnswer): string {
  return address === "" ? "" : `${address}:${meshPort}`;
}

function stateOf(terminal: Terminal, { state, health }: ProxyAnswer): string {
  if (state !== "up") return paint(terminal, state === "down" ? "red" : "yellow", state);
  return health === "unhealthy" ? paint(terminal, "yellow", "unhealthy") : state;
}

function revisionOf(terminal: Terminal, proxy: ProxyAnswer, status: StatusAnswer): string {
  const refused = proxy.refused.length > 0 ? paint(terminal, "red", " refused") : "";
  if (proxy.revision >= status.revision) return `${proxy.revision}${refused}`;
  return `${paint(terminal, "yellow", `${proxy.revision} of ${status.revision}`)}${refused}`;
}

function certificateOf(terminal: Terminal, proxy: ProxyAnswer, now: number): string {
  if (proxy.certificateExpires === null) return "";
  const left = proxy.certificateExpires - now;
  return left > 0 ? age(left) : paint(terminal, "red", "expired");
}
