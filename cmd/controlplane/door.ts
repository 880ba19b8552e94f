/**
 * The API's listener with a certificate that renews itself. It is opened before anything slow:
 * a busy port is told at once, and callers hear that the control plane is starting.
 */
import { Renewal } from "../../src/agent/renewal.ts";
import { issueOwnSvid } from "../../src/control/own-identity.ts";
import { Failure } from "../../src/error.ts";
import type { Authority } from "../../src/identity/ca.ts";
import type { Svid } from "../../src/identity/svid.ts";
import { Admission } from "../../src/net/admission.ts";
import { pendingBytes } from "../../src/net/connection.ts";
import { type Listener, listenTls } from "../../src/net/listen.ts";
import { type TlsContext, tlsContext } from "../../src/net/tls.ts";
import { type ServedApp, serveApp } from "../../src/serve/serve.ts";
import type { Logger } from "../../src/telemetry/log.ts";
import type { Metrics } from "../../src/telemetry/metrics.ts";
import { apiCallersMax, tellTurnedAway } from "../descriptors.ts";
import { pendingMax } from "../memory.ts";
import type { ControlplaneOptions } from "../options.ts";
import { namesOf } from "./addresses.ts";

export interface DoorParts {
  readonly options: ControlplaneOptions;
  readonly authority: Authority;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly now: () => number;
}

/** The certificate of the API itself, unless workloads' are shorter still. */
const TTL_MS = 24 * 3_600_000;

/** Bytes held for clients that are slow. */
const HELD_MAX = pendingMax();

const STARTING = JSON.stringify({
  type: "about:blank",
  title: "Service Unavailable",
  status: 503,
  detail: "the control plane is starting",
  code: "starting",
  fix: "try again in a second",
});

export class ApiDoor {
  /** Replaced once the API is complete. */
  app: ServedApp = {
    fetch: () =>
      new Response(STARTING, {
        status: 503,
        headers: { "content-type": "application/problem+json", "retry-after": "1" },
      }),
  };
  readonly #parts: DoorParts;
  readonly #admission = new Admission(apiCallersMax());
  readonly #stopTelling: () => void;
  readonly #listeners = new Set<(svid: Svid) => void>();
  #svid: Svid;
  #context: TlsContext;
  #listener: Listener | undefined;
  readonly #renewal: Renewal;
  #issuedAt: number;
  #draining = false;

  private constructor(parts: DoorParts, svid: Svid) {
    this.#parts = parts;
    const { max } = this.#admission;
    this.#stopTelling = tellTurnedAway(() => this.turnedAway, max, parts.log);
    this.#svid = svid;
    this.#issuedAt = parts.now();
    this.#context = contextOf(svid, parts.authority);
    this.#renewal = new Renewal({
      life: () => ({ issuedAt: this.#issuedAt, notAfter: this.#svid.notAfter }),
      linked: () => true,
      renew: () => this.#renew(),
      now: parts.now,
      random: Math.random,
    });
  }

  /** @throws Failure `port_in_use`. */
  static async open(parts: DoorParts, opened: AsyncDisposableStack): Promise<ApiDoor> {
    const door = new ApiDoor(parts, await issue(parts));
    door.#listen();
    opened.defer(() => door.close());
    door.#renewal.schedule();
    return door;
  }

  get port(): number {
    return this.#listener?.port ?? 0;
  }

  /** Callers turned away so far because there was no room. */
  get turnedAway(): number {
    return this.#admission.refused;
  }

  get svid(): Svid {
    return this.#svid;
  }

  /** Hears every later certificate. */
  renewed(listener: (svid: Svid) => void): void {
    this.#listeners.add(listener);
  }

  async close(): Promise<void> {
    this.#renewal.close();
    this.#stopTelling();
    this.#draining = true;
    this.#listener?.stop();
    this.#listener?.closeAll();
  }

  #listen(): void {
    const { options, log, metrics, now } = this.#parts;
    const port = options.portBase + 10;
    const handshakes = metrics.counters(
      "weft_controlplane_handshakes_refused_total",
      "Callers of the API turned away before their TLS handshake was complete.",
      ["reason"],
    );
    const requests = metrics.counters(
      "weft_controlplane_requests_refused_total",
      "Requests to the API refused before it heard of them, and answers that nobody read.",
      ["code"],
    );
    try {
      this.#listener = listenTls({
        host: options.bind,
        port,
        admission: this.#admission,
        context: () => this.#context,
        requestCert: "optional",
        alpn: [],
        accept: (c) =>
          serveApp(
            c,
            { fetch: (request, env) => this.app.fetch(request, env) },
            {
              now,
              draining: () => this.#draining,
              flooded: () => pendingBytes() > HELD_MAX,
              failed: (error) => log.error("a request failed", { error }),
              refused: (code) => {
                requests.slot(code).value++;
              },
            },
          ),
        refused: (why) => {
          handshakes.slot(why).value++;
          log.debug("a connection was refused", { why });
        },
      });
    } catch (cause) {
      throw portFailure(options.bind, port, cause);
    }
  }

  async #renew(): Promise<boolean> {
    const { authority, log, now } = this.#parts;
    try {
      this.#svid = await issue(this.#parts);
      this.#issuedAt = now();
      this.#context = contextOf(this.#svid, authority);
      for (const listener of this.#listeners) listener(this.#svid);
      this.#renewal.schedule();
      return true;
    } catch (error) {
      log.error("cannot renew the certificate of the API; trying again", { error });
      return false;
    }
  }
}

function issue({ options, authority }: DoorParts): Promise<Svid> {
  const ttlMs = Math.min(options.svidTtlMs, TTL_MS);
  return issueOwnSvid(authority, namesOf(options.bind), ttlMs);
}

function contextOf(svid: Svid, authority: Authority): TlsContext {
  return tlsContext({ cert: svid.chainPem, key: svid.keyPem, ca: authority.bundle });
}

function portFailure(host: string, port: number, cause: unknown): Failure {
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
  const where = `${host}:${port}`;
  if (code === "EADDRINUSE") {
    return new Failure(
      "port_in_use",
      `the API cannot listen on ${where}: the port is in use`,
      "stop the other program, or shift weft's ports with --port-base",
      { cause },
    );
  }
  return new Failure(
    "cannot_listen",
    `the API cannot listen on ${where}${code === "" ? "" : ` (${code})`}`,
    "check --bind: it must be an address of this host",
    { cause },
  );
}
