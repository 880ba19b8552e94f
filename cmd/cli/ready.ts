/** `weft wait` and `weft healthcheck`: for start-up scripts and containers. */
import type { StatusAnswer } from "../../src/api/answers.ts";
import { EXIT, Failure } from "../../src/error.ts";
import { isName } from "../../src/identity/spiffe.ts";
import { readName, usage } from "../grammar.ts";
import { DEFAULTS } from "../start.ts";
import { dataFolder, runFile } from "./locate.ts";
import type { Session, Typed } from "./session.ts";
import { paint } from "./terminal.ts";
import { typedDuration, typedToggle } from "./typed.ts";

const POLL_MS = 100;
const PROBE_MS = 2_000;

type Target =
  | { readonly kind: "proxy" }
  | { readonly kind: "controlplane" }
  | { readonly kind: "service"; readonly name: string };

function readTarget(argument: string | undefined, verb: "wait" | "healthcheck"): Target {
  if (argument === undefined || argument === "proxy") return { kind: "proxy" };
  if (argument === "controlplane") return { kind: "controlplane" };
  const match = /^(?:service|svc)\/(.+)$/.exec(argument);
  if (match !== null) return { kind: "service", name: readName(match[1] ?? "", "wait service/") };
  if (verb === "healthcheck") {
    throw usage(`"${argument}" cannot be looked at from here`, "one of proxy, controlplane");
  }
  const fix = isName(argument) ? `for a service: weft wait service/${argument}` : "";
  throw usage(
    `"${argument}" cannot be waited for`,
    fix === "" ? "one of proxy, controlplane, service/NAME" : fix,
  );
}

export async function wait(
  session: Session,
  args: readonly string[],
  typed: Typed,
): Promise<number> {
  const target = readTarget(args[0], "wait");
  const timeoutMs = typedDuration(typed, "timeout", 60_000);
  const { terminal } = session;
  const deadline = terminal.now() + timeoutMs;
  let last = "";
  while (terminal.now() < deadline) {
    const problem = await problemOf(session, target);
    if (problem === undefined) {
      terminal.err(`${paint(terminal, "green", "√")} ready\n`);
      return EXIT.ok;
    }
    last = problem;
    await terminal.sleep(POLL_MS);
  }
  throw new Failure(
    "timed_out",
    `not ready after ${timeoutMs} ms: ${last}`,
    "weft check may say why",
    {
      exit: EXIT.timedOut,
    },
  );
}

export async function healthcheck(
  session: Session,
  args: readonly string[],
  typed: Typed,
): Promise<number> {
  const target = readTarget(args[0] ?? defaultTarget(session), "healthcheck");
  if (target.kind === "service")
    throw usage("healthcheck looks at this host", "weft wait service/NAME");
  const path = typedToggle(typed, "ready") ? "/readyz" : "/healthz";
  const problem = await probe(addressOf(session, target.kind), path);
  if (problem === undefined) return EXIT.ok;
  session.terminal.err(`${problem}\n`);
  return EXIT.failed;
}

/** In a container started by `WEFT_MODE`, the health check needs no argument. */
function defaultTarget(session: Session): string {
  return session.env["WEFT_MODE"] === "controlplane" ? "controlplane" : "proxy";
}

/** What is not ready yet, in words; undefined when it is. */
async function problemOf(session: Session, target: Target): Promise<string | undefined> {
  if (target.kind !== "service") return probe(addressOf(session, target.kind), "/readyz");
  try {
    const client = await session.client();
    const { proxies } = await client.get<StatusAnswer>("/v1/status");
    const ready = proxies.some(
      ({ namespace, service, state, health }) =>
        namespace === session.namespace &&
        service === target.name &&
        state === "up" &&
        health === "healthy",
    );
    return ready ? undefined : `no healthy instance of ${session.namespace}/${target.name}`;
  } catch (error) {
    // A refused token does not get better by waiting.
    if (error instanceof Failure && error.exit !== EXIT.unreachable) throw error;
    return error instanceof Error ? error.message : String(error);
  }
}

/** Where this host's proxy or control plane says how it is. */
function addressOf(session: Session, kind: "proxy" | "controlplane"): string {
  const { settings, env } = session;
  const base = settings["port-base"] ?? DEFAULTS.portBase;
  if (kind === "controlplane") {
    return settings.controlplane ?? apiInRunFile(session) ?? `https://127.0.0.1:${base + 10}`;
  }
  const metrics = settings.data === undefined ? undefined : runFile(settings.data, "metrics");
  const bind = env["WEFT_METRICS_BIND"] ?? "127.0.0.1";
  const host = bind === "0.0.0.0" || bind === "::" ? "127.0.0.1" : bind;
  return `http://${metrics ?? `${host}:${base + 20}`}`;
}

function apiInRunFile({ settings, env }: Session): string | undefined {
  if (settings["port-base"] !== undefined) return undefined;
  return runFile(dataFolder(settings, env, process.getuid?.() ?? 0), "api");
}

/** Sends no secret, so the certificate is not looked at: this asks for life, not for identity. */
async function probe(origin: string, path: string): Promise<string | undefined> {
  try {
    const response = await fetch(origin + path, {
      signal: AbortSignal.timeout(PROBE_MS),
      tls: { rejectUnauthorized: false },
    });
    const body = (await response.text()).trim();
    if (response.ok) return undefined;
    return `${origin}${path}: HTTP ${response.status}${body === "" ? "" : `: ${body.split("\n")[0]}`}`;
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : String(error);
    return `${origin} does not answer (${code})`;
  }
}
