/** Reads what the proxies say of themselves and turns it into one row per edge of the mesh. */

export interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface Edge {
  readonly source: string;
  readonly destination: string;
  readonly protocol: "http" | "tcp";
  requests: number;
  failed: number;
  /** Requests, or bytes of opaque TCP, that rode mutual TLS. */
  encrypted: number;
  bytes: number;
  readonly subsets: Map<string, number>;
  /** Cumulative counts by upper bound in seconds. */
  readonly buckets: Map<number, number>;
}

/** Prometheus text exposition, as far as our own proxies use it. */
export function parse(text: string): Sample[] {
  const samples: Sample[] = [];
  for (const line of text.split("\n")) {
    const match = /^([a-z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (match === null) continue;
    const labels: Record<string, string> = {};
    for (const [, key, value] of (match[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) {
      if (key !== undefined) labels[key] = value ?? "";
    }
    samples.push({ name: match[1] ?? "", labels, value: Number(match[3]) });
  }
  return samples;
}

function edgeOf(edges: Map<string, Edge>, sample: Sample, protocol: Edge["protocol"]): Edge {
  const source = sample.labels["workload"] ?? "?";
  const destination = sample.labels["peer"] ?? "?";
  const key = `${source} ${destination}`;
  const known = edges.get(key);
  if (known !== undefined) return known;
  const edge: Edge = {
    ...{ source, destination, protocol, requests: 0, failed: 0, encrypted: 0, bytes: 0 },
    subsets: new Map(),
    buckets: new Map(),
  };
  edges.set(key, edge);
  return edge;
}

function addTo<K>(map: Map<K, number>, key: K, value: number): void {
  map.set(key, (map.get(key) ?? 0) + value);
}

/** Cumulative counts of every outbound edge. */
export function edgesOf(samples: readonly Sample[]): Map<string, Edge> {
  const edges = new Map<string, Edge>();
  for (const sample of samples) {
    // Answers of a proxy that found no destination are not an edge.
    if (sample.labels["direction"] !== "outbound" || sample.labels["peer"] === "") continue;
    if (sample.name === "weft_requests_total") {
      const edge = edgeOf(edges, sample, "http");
      edge.requests += sample.value;
      if (Number(sample.labels["code"]) >= 500) edge.failed += sample.value;
      if (sample.labels["tls"] === "mtls") edge.encrypted += sample.value;
      const subset = sample.labels["subset"] ?? "";
      if (subset !== "") addTo(edge.subsets, subset, sample.value);
    } else if (sample.name === "weft_request_duration_seconds_bucket") {
      addTo(edgeOf(edges, sample, "http").buckets, Number(sample.labels["le"]), sample.value);
    } else if (sample.name === "weft_tcp_connections_total") {
      const edge = edgeOf(edges, sample, "tcp");
      edge.requests += sample.value;
      if ((sample.labels["reason"] ?? "") !== "") edge.failed += sample.value;
    } else if (sample.name === "weft_tcp_bytes_total") {
      const edge = edgeOf(edges, sample, "tcp");
      edge.bytes += sample.value;
      if (sample.labels["tls"] === "mtls") edge.encrypted += sample.value;
    }
  }
  return edges;
}

/** How much went over the edge, in the unit that `encrypted` counts. */
export function amountOf(edge: Edge): number {
  return edge.protocol === "http" ? edge.requests : edge.bytes;
}

/** What happened between two readings. */
export function difference(now: Edge, before: Edge | undefined): Edge {
  if (before === undefined) return now;
  const minus = <K>(a: Map<K, number>, b: Map<K, number>) =>
    new Map([...a].map(([key, value]) => [key, value - (b.get(key) ?? 0)]));
  return {
    ...now,
    requests: now.requests - before.requests,
    failed: now.failed - before.failed,
    encrypted: now.encrypted - before.encrypted,
    bytes: now.bytes - before.bytes,
    subsets: minus(now.subsets, before.subsets),
    buckets: minus(now.buckets, before.buckets),
  };
}

/** A quantile in seconds by linear interpolation within its bucket. */
export function quantile(edge: Edge, q: number): number {
  const bounds = [...edge.buckets].sort(([a], [b]) => a - b);
  const total = bounds.at(-1)?.[1] ?? 0;
  if (total === 0) return Number.NaN;
  let lowerBound = 0;
  let lowerCount = 0;
  for (const [bound, count] of bounds) {
    if (count >= q * total) {
      if (!Number.isFinite(bound)) return lowerBound;
      const share = (q * total - lowerCount) / Math.max(1e-9, count - lowerCount);
      return lowerBound + (bound - lowerBound) * share;
    }
    lowerBound = bound;
    lowerCount = count;
  }
  return lowerBound;
}
