/**
 * The golden signals of traffic: requests, durations and bytes for each pair of peers. A meter is
 * resolved when a connection or a target is, so that recording a request is a few additions.
 */
import { type Counters, labelText, type Metrics, type Sample, type Slot } from "./metrics.ts";

/** Who talks to whom, as labels. */
export interface Edge {
  readonly direction: "inbound" | "outbound";
  /** The local workload, `<namespace>/<service>`. */
  readonly workload: string;
  /** The caller, `<namespace>/<service account>`; "" unknown. */
  readonly source: string;
  /** The service called, `<namespace>/<service>`; "" when no route was found. */
  readonly peer: string;
  /** Service port; "" when no route was found. */
  readonly port: string;
  readonly subset: string;
  /** mtls: inside the mesh. tls: begun by this proxy towards a server outside. */
  readonly tls: "mtls" | "tls" | "none";
}

const EDGE = ["direction", "workload", "source", "peer", "port", "subset", "tls"] as const;

/** Upper bounds in seconds. */
const BOUNDS = Float64Array.of(
  ...[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
);

export class RequestMeter {
  readonly #edge: readonly string[];
  readonly #requests: Counters;
  /** By status, for answers without a reason. */
  readonly #codes: (Slot | undefined)[] = [];
  readonly #buckets = new Float64Array(BOUNDS.length + 1);
  readonly #labels: string;
  #sum = 0;
  readonly received: Slot;
  readonly sent: Slot;

  /** Made by `Golden`. */
  constructor(edge: readonly string[], requests: Counters, received: Slot, sent: Slot) {
    this.#edge = edge;
    this.#requests = requests;
    this.#labels = labelText(EDGE, edge);
    this.received = received;
    this.sent = sent;
  }

  /** `reason` is "" for answers that are not weft's own. */
  record(status: number, reason: string, durationMs: number): void {
    const seconds = durationMs / 1000;
    let i = 0;
    while (i < BOUNDS.length && seconds > BOUNDS[i]!) i++;
    this.#buckets[i]! += 1;
    this.#sum += seconds;
    if (reason !== "") {
      this.#requests.slot(...this.#edge, String(status), reason).value++;
      return;
    }
    const slot = this.#codes[status];
    if (slot !== undefined) slot.value++;
    else this.#firstOf(status).value++;
  }

  #firstOf(status: number): Slot {
    const slot = this.#requests.slot(...this.#edge, String(status), "");
    this.#codes[status] = slot;
    return slot;
  }

  *durations(): Iterable<Sample> {
    const labels = this.#labels;
    let count = 0;
    if (this.#sum === 0) return;
    for (let i = 0; i < this.#buckets.length; i++) {
      count += this.#buckets[i]!;
      const le = i < BOUNDS.length ? BOUNDS[i] : "+Inf";
      yield { suffix: "_bucket", labels: `${labels},le="${le}"`, value: count };
    }
    yield { suffix: "_sum", labels, value: this.#sum };
    yield { suffix: "_count", labels, value: count };
  }
}

export interface TcpMeter {
  readonly received: Slot;
  readonly sent: Slot;
  /** One connection is over; `reason` is "" unless weft ended it. */
  record(reason: string): void;
}

/** Requests of peers beyond this many edges are counted together. */
const METERS_MAX = 2000;

export class Golden {
  readonly #requests: Counters;
  readonly #bytes: Counters;
  readonly #tcp: Counters;
  readonly #tcpBytes: Counters;
  readonly #meters = new Map<string, RequestMeter>();
  readonly connections: Counters;
  readonly connectionsEnded: Counters;
  readonly handshakesRefused: Counters;
  readonly retries: Counters;
  readonly pathNormalizations: Counters;
  readonly detections: Counters;

  constructor(metrics: Metrics) {
    this.#requests = metrics.counters(
      "weft_requests_total",
      "HTTP requests by peer, response code and, where weft answered itself, reason.",
      [...EDGE, "code", "reason"],
    );
    metrics.observe(
      "weft_request_duration_seconds",
      "Time from a request's head to the end of its response.",
      "histogram",
      () => this.#durations(),
    );
    this.#bytes = metrics.counters(
      "weft_http_body_bytes_total",
      "Body bytes; received are those of requests, sent those of responses.",
      [...EDGE, "way"],
    );
    this.#tcp = metrics.counters(
      "weft_tcp_connections_total",
      "Opaque TCP connections that are over, by peer and, where weft ended them, reason.",
      [...EDGE, "reason"],
    );
    this.#tcpBytes = metrics.counters(
      "weft_tcp_bytes_total",
      "Bytes of opaque TCP; received come from the caller, sent go to it.",
      [...EDGE, "way"],
    );
    this.connections = metrics.counters(
      "weft_connections_total",
      "Connections accepted from callers.",
      ["direction", "workload"],
    );
    this.connectionsEnded = metrics.counters(
      "weft_connections_ended_total",
      "Callers' connections ended between requests: idle, crowded (idle, and others waited), unread.",
      ["direction", "workload", "reason"],
    );
    this.handshakesRefused = metrics.counters(
      "weft_handshakes_refused_total",
      "Callers turned away at the mesh port.",
      ["reason"],
    );
    this.pathNormalizations = metrics.counters(
      "weft_path_normalizations_total",
      "Requests whose path was not in normal form: changed, refused, or reported and left alone.",
      ["direction", "workload", "outcome"],
    );
    this.detections = metrics.counters(
      "weft_protocol_detections_total",
      "Connections to ports without a declared protocol, by what they turned out to be.",
      ["workload", "peer", "port", "verdict"],
    );
    this.retries = metrics.counters(
      "weft_retries_total",
      "Further attempts made for requests, by what went wrong before.",
      ["workload", "peer", "reason"],
    );
  }

  meter(edge: Edge): RequestMeter {
    let values: readonly string[] = EDGE.map((name) => edge[name]);
    let key = values.join("\n");
    let meter = this.#meters.get(key);
    if (meter !== undefined) return meter;
    if (this.#meters.size >= METERS_MAX) {
      values = EDGE.map((name) => (name === "source" || name === "peer" ? "other" : edge[name]));
      key = values.join("\n");
      meter = this.#meters.get(key);
      if (meter !== undefined) return meter;
    }
    const received = this.#bytes.slot(...values, "received");
    meter = new RequestMeter(values, this.#requests, received, this.#bytes.slot(...values, "sent"));
    this.#meters.set(key, meter);
    return meter;
  }

  tcpMeter(edge: Edge): TcpMeter {
    const values = EDGE.map((name) => edge[name]);
    return {
      received: this.#tcpBytes.slot(...values, "received"),
      sent: this.#tcpBytes.slot(...values, "sent"),
      record: (reason) => {
        this.#tcp.slot(...values, reason).value++;
      },
    };
  }

  *#durations(): Iterable<Sample> {
    for (const meter of this.#meters.values()) yield* meter.durations();
  }
}
