/**
 * The life of a request, read from top to bottom: every decision about where a request goes is in
 * these functions. How its bytes get there and back is Exchange's business.
 */

import { guarded } from "../net/boundary.ts";
import { DEFAULT_LEVEL, normalizeTarget, type PathNormalization } from "../route/normalize.ts";
import { redirectLocation } from "../route/redirect.ts";
import { type Resolution, splitAuthority } from "../snapshot/authority.ts";
import { type Route, routeRequest, type UpstreamPort } from "../snapshot/snapshot.ts";
import type { Destination } from "../upstream/destination.ts";
import type { Exchange } from "./exchange.ts";
import type { Forward } from "./forward.ts";
import { hopsLeft } from "./heads.ts";
import type { OutsideHosts } from "./outside.ts";
import type { ProxyState } from "./state.ts";
import { tunnelToService } from "./tcp.ts";
import type { LocalWorkload } from "./workload.ts";

/** Requests of many callers share connections, and a PROXY header names one. */
export const NO_REQUESTS = "takes connections with a PROXY header: no single requests";

/** A listener of a local workload's application. */
export interface Outbound {
  readonly local: LocalWorkload;
  readonly outside: OutsideHosts;
  readonly state: ProxyState;
  /** Set where the listener and not the request says which service is meant. */
  readonly authority: string | undefined;
}

/** A request of a local application. */
export function beginOutbound(exchange: Exchange, side: Outbound): void {
  const view = side.local.view; // Held to the end: one request, one snapshot.
  if (view === undefined) {
    exchange.answer("no_route", "this proxy has no configuration yet", 503);
    return;
  }
  if (endsHere(exchange) || !normalize(exchange, view.snapshot.mesh.pathNormalization)) return;
  if (side.authority !== undefined && exchange.head.authority === "") {
    exchange.address(side.authority);
  }
  const { head } = exchange;
  const found = view.authorities.resolve(side.authority ?? head.authority);
  if (found.kind !== "service") {
    beginUnresolved(exchange, side, found);
    return;
  }
  if (head.method === "CONNECT") {
    connectTunnel(exchange, side, side.local.upstreams.destination(found.port.target));
    return;
  }
  const route = routeRequest(found.port, head);
  if (route === undefined) {
    exchange.answer("no_route", `no route of ${found.port.target.key} matches this request`);
    return;
  }
  const { rule } = route;
  if (rule.redirect !== undefined) {
    beginRedirect(exchange, found.port, route);
    return;
  }
  const backend = rule.only ?? side.local.upstreams.split(rule);
  const target = backend?.target;
  if (backend === undefined || target === undefined) {
    exchange.answer("invalid_backend", `${rule.name} names a backend that does not exist`);
    return;
  }
  if (target.policy.proxyProtocol !== undefined) {
    exchange.answer("bad_request", `${target.key} ${NO_REQUESTS}`);
    return;
  }
  const destination = side.local.upstreams.destination(target);
  const { connectTimeoutMs, idleTimeoutMs } = target.policy;
  const { prefix } = route;
  const endpoint = undefined;
  exchange.forward({
    destination,
    endpoint,
    rule,
    backend,
    prefix,
    connectTimeoutMs,
    idleTimeoutMs,
  });
}

/**
 * A request of another proxy, its identity already verified by the handshake. That proxy has
 * normalised the path: one that is not normal comes from somebody who wants it read in two ways.
 * Callers in plaintext have no proxy, and their paths are normalised here.
 */
export function beginInbound(
  exchange: Exchange,
  app: Forward,
  level: PathNormalization = DEFAULT_LEVEL,
): void {
  if (exchange.head.method === "CONNECT") {
    exchange.answer("bad_request", "CONNECT ends at the caller's proxy", 501);
    return;
  }
  if (endsHere(exchange)) return;
  if (exchange.downstream.tls === undefined) {
    if (normalize(exchange, level)) exchange.forward(app);
    return;
  }
  const { target } = exchange.head;
  const refuses = level !== "NONE" && level !== "REPORT_ONLY";
  if (refuses && normalizeTarget(target, level) !== target) {
    exchange.countPath("refused");
    exchange.answer("bad_request", "the path is not in normal form");
    return;
  }
  exchange.forward(app);
}

/** RFC 9110, 7.6.2: a request that may go no further is answered by whoever has it. */
function endsHere(exchange: Exchange): boolean {
  if (hopsLeft(exchange.head) !== 0) return false;
  if (exchange.head.method === "OPTIONS") exchange.reply(200, "");
  else exchange.answer("bad_request", "this proxy does not echo requests", 501);
  return true;
}

/** Gives the request's path its one spelling. False: it has none, and has been answered. */
function normalize(exchange: Exchange, level: PathNormalization = DEFAULT_LEVEL): boolean {
  const { target } = exchange.head;
  const normal = normalizeTarget(target, level === "REPORT_ONLY" ? DEFAULT_LEVEL : level);
  if (normal === target) return true;
  if (level === "REPORT_ONLY") {
    exchange.countPath("reported");
    return true;
  }
  if (normal === undefined) {
    exchange.countPath("refused");
    exchange.answer("bad_request", "the path holds %00, `..;` or a % without two hex digits");
    return false;
  }
  exchange.countPath("changed");
  exchange.retarget(normal);
  return true;
}

function beginRedirect(exchange: Exchange, port: UpstreamPort, route: Route): void {
  const { head } = exchange;
  const { rule, prefix } = route;
  const split = splitAuthority(head.authority);
  const location = redirectLocation(rule.redirect!, {
    scheme: "http",
    host: split?.host ?? head.authority,
    port: split?.port ?? port.port,
    target: head.target,
    prefix,
  });
  const fields = `location: ${location}\r\n${rule.responseHeaders?.lines ?? ""}`;
  exchange.reply(rule.redirect!.status, fields);
}

function beginUnresolved(
  exchange: Exchange,
  side: Outbound,
  found: Exclude<Resolution, { kind: "service" }>,
): void {
  switch (found.kind) {
    case "ambiguous_port": {
      const ports = [...found.service.ports.keys()].join(", ");
      exchange.answer("ambiguous_port", `${found.service.service} has ports ${ports}: name one`);
      return;
    }
    case "no_port":
      exchange.answer("no_route", `${found.service.service} has no port ${found.port}`);
      return;
    case "malformed":
      exchange.answer("bad_request", "the request names no valid authority");
      return;
    case "unknown": {
      const { namespace, service, certain, host, port } = found;
      side.local.learn(namespace, service, (known) => {
        later(exchange, () => {
          if (known) beginOutbound(exchange, side);
          else if (certain)
            exchange.answer("no_route", `no service is called ${namespace}/${service}`);
          else beginOutside(exchange, side, host, port);
        });
      });
      return;
    }
    case "outside":
      beginOutside(exchange, side, found.host, found.port);
  }
}

function beginOutside(
  exchange: Exchange,
  side: Outbound,
  host: string,
  port: number | undefined,
): void {
  if (side.local.view?.snapshot.mesh.outbound !== "ALLOW_ANY") {
    exchange.answer("no_route", `${host} is not a service of the mesh`);
    return;
  }
  side.outside.find(host, port ?? 80).then((found) => {
    later(exchange, () => {
      if (found.kind === "refused") {
        exchange.answer("no_route", found.why);
        return;
      }
      const destination = side.local.upstreams.destination(found.target);
      if (exchange.head.method === "CONNECT") {
        connectTunnel(exchange, side, destination);
        return;
      }
      const { connectTimeoutMs, idleTimeoutMs } = found.target.policy;
      const open = { endpoint: undefined, rule: undefined, backend: undefined, prefix: "" };
      exchange.forward({ destination, ...open, connectTimeoutMs, idleTimeoutMs });
    });
  });
}

/** Comes back to a request whose decision took time, unless its caller is gone. */
function later(exchange: Exchange, decide: () => void): void {
  if (!exchange.deciding) return;
  guarded("decision", exchange.downstream, () => {
    decide();
    exchange.proceed();
  });
}

/** CONNECT: opaque bytes to the port that the authority names. */
function connectTunnel(exchange: Exchange, side: Outbound, destination: Destination): void {
  tunnelToService(exchange.downstream, destination, {
    state: side.state,
    direction: "outbound",
    workload: side.local.name,
    opened: () => exchange.granted(),
    failed: (reason, message) => {
      if (exchange.deciding) exchange.answer(reason, message);
    },
  });
}
