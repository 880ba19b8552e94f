/**
 * Everything one local workload dials: destinations by target and endpoints by address, kept while
 * snapshots come and go.
 */
import type { HostNames } from "../net/host-names.ts";
import type { Room } from "../net/room.ts";
import type { TlsContext } from "../net/tls.ts";
import { splitCounters, stepSplit } from "../route/split.ts";
import type { EndpointDocument } from "../snapshot/document.ts";
import type { CompiledBackend, CompiledRule, Target } from "../snapshot/snapshot.ts";
import type { Edge, Golden, RequestMeter, TcpMeter } from "../telemetry/golden.ts";
import { Destination, type DestinationMeters } from "./destination.ts";
import { Endpoint, type Security } from "./endpoint.ts";
import { OutsideDial } from "./outside-dial.ts";

export interface UpstreamsOptions {
  /** `<namespace>/<service>` of the workload. */
  readonly workload: string;
  readonly golden: Golden;
  /** Monotonic milliseconds. */
  readonly now: () => number;
  /** The workload's current TLS context. */
  readonly context: () => TlsContext | undefined;
  /** For what it dials. */
  readonly room: Room;
  /** Addresses of hosts that have no proxy. */
  readonly names: HostNames;
}

/** Splits and destinations nobody has used for this long are forgotten. */
const FORGET_MS = 10 * 60_000;
const SPLITS_MAX = 4096;

export class Upstreams {
  readonly #options: UpstreamsOptions;
  readonly #destinations = new Map<string, Destination>();
  readonly #endpoints = new Map<string, Endpoint>();
  readonly #splits = new Map<string, number[]>();
  readonly #usedAt = new Map<string, number>();

  constructor(options: UpstreamsOptions) {
    this.#options = options;
  }

  /** The state behind a target, brought to the target's description. */
  destination(target: Target): Destination {
    const known = this.#destinations.get(target.key);
    if (known !== undefined && known.target === target) return known;
    const destination = known ?? new Destination(target, this.#meters(target));
    if (known === undefined) this.#destinations.set(target.key, destination);
    this.#usedAt.set(target.key, this.#options.now());
    const preferred: Endpoint[] = [];
    const suspects: Endpoint[] = [];
    for (const document of target.endpoints) {
      const endpoint = this.#endpoint(target, document);
      if (document.suspect === true) suspects.push(endpoint);
      else preferred.push(endpoint);
    }
    destination.update(target, preferred, suspects);
    return destination;
  }

  /** The next backend of a rule, exact to its weights; undefined when all weights are 0. */
  split(rule: CompiledRule): CompiledBackend | undefined {
    if (rule.only !== undefined) return rule.only;
    let counters = this.#splits.get(rule.splitKey);
    if (counters === undefined) {
      if (this.#splits.size >= SPLITS_MAX) this.#splits.clear();
      counters = splitCounters(rule.weights);
      this.#splits.set(rule.splitKey, counters);
    }
    return rule.backends[stepSplit(rule.weights, counters)];
  }

  /** Closes connections that have been idle for too long, forgets endpoints that are gone. */
  sweep(): void {
    const now = this.#options.now();
    const described = new Set<Endpoint>();
    for (const [key, destination] of this.#destinations) {
      const busy = destination.active > 0 || destination.endpoints().some((e) => e.idle > 0);
      if (busy) this.#usedAt.set(key, now);
      if (now - (this.#usedAt.get(key) ?? 0) > FORGET_MS) {
        this.#destinations.delete(key);
        this.#usedAt.delete(key);
        continue;
      }
      for (const endpoint of destination.endpoints()) described.add(endpoint);
    }
    for (const [key, endpoint] of this.#endpoints) {
      endpoint.sweep(now);
      if (described.has(endpoint) || endpoint.active > 0) continue;
      endpoint.retire();
      this.#endpoints.delete(key);
    }
  }

  /** The workload is gone. */
  retire(): void {
    for (const endpoint of this.#endpoints.values()) endpoint.retire();
  }

  #endpoint(target: Target, document: EndpointDocument): Endpoint {
    const { address, meshPort, identity } = document;
    const weight = Math.max(1, document.weight);
    const secure = meshPort !== undefined;
    const port = meshPort ?? document.ports[String(target.port)] ?? target.port;
    const { tls } = target.policy;
    // What callers of such a port send is HTTP/2 already, and servers want to be told.
    const opaque = target.protocol === "http2" || target.protocol === "grpc" ? "h2" : "";
    const how = secure ? target.sni : tls === undefined ? "" : opaque + JSON.stringify(tls);
    const key = `${address}|${port}|${how}|${identity ?? ""}|${weight}`;
    const known = this.#endpoints.get(key);
    if (known !== undefined) return known;
    const { context, names, now, room } = this.#options;
    // An endpoint with a mesh port and no identity accepts nobody: it must not be trusted blindly.
    const dialled = secure
      ? { mesh: { sni: target.sni, identity: identity ?? "", context } }
      : { outside: new OutsideDial({ tls, opaque, names, now }) };
    const endpoint = new Endpoint({ host: address, port, weight, ...dialled }, now, room);
    this.#endpoints.set(key, endpoint);
    return endpoint;
  }

  #meters(target: Target): DestinationMeters {
    const { workload, golden } = this.#options;
    const edge: Omit<Edge, "tls"> = {
      direction: "outbound",
      workload,
      source: workload,
      peer: `${target.namespace}/${target.service}`,
      port: String(target.port),
      subset: target.subset ?? "",
    };
    const http: Partial<Record<Security, RequestMeter>> = {};
    const tcp: Partial<Record<Security, TcpMeter>> = {};
    return {
      http(tls) {
        http[tls] ??= golden.meter({ ...edge, tls });
        return http[tls];
      },
      tcp(tls) {
        tcp[tls] ??= golden.tcpMeter({ ...edge, tls });
        return tcp[tls];
      },
    };
  }
}
