/** Two or more workloads in one data plane, with real certificates and hand-made documents. */
import type { Svid } from "../identity/svid.ts";
import { type TestIdentity, testAuthority } from "../net/certificates.fixture.ts";
import { compileSnapshot } from "../snapshot/compile.ts";
import type {
  EndpointDocument,
  MeshDocument,
  OutPort,
  Protocol,
  RouteTable,
  TrafficPolicyDocument,
} from "../snapshot/document.ts";
import type { Snapshot } from "../snapshot/snapshot.ts";
import { Cell } from "../std/cell.ts";
import { Metrics } from "../telemetry/metrics.ts";
import { DataPlane, type DataPlaneOptions } from "./data-plane.ts";
import type { AppPort, LocalWorkload } from "./workload.ts";

export const TRUST_DOMAIN = "weft.test";
export const authority = testAuthority(TRUST_DOMAIN);

export const POLICY: TrafficPolicyDocument = {
  balancer: "least_request",
  connectTimeoutMs: 1000,
  requestTimeoutMs: 0,
  perTryTimeoutMs: 0,
  idleTimeoutMs: 30_000,
  retries: {
    attempts: 2,
    on: ["connect_failure", "refused_stream", "app_unreachable"],
    codes: [],
    backoffMs: 5,
    budgetPercent: 20,
    budgetMinConcurrency: 3,
  },
  maxConnections: 1024,
  maxPending: 1024,
};

export interface ServiceSpec {
  readonly service: string;
  readonly port: number;
  readonly protocol?: Protocol;
  /** No protocol is declared. */
  readonly detect?: true;
  readonly policy?: Partial<TrafficPolicyDocument>;
  readonly routes?: RouteTable;
  readonly subsets?: readonly { readonly name: string; readonly labels: Record<string, string> }[];
  readonly endpoints: readonly Partial<EndpointDocument>[];
}

export interface TestWorkload {
  readonly local: LocalWorkload;
  readonly identity: Cell<Svid | undefined>;
  readonly snapshot: Cell<Snapshot | undefined>;
  readonly outbound: number;
  readonly url: string;
}

export function svidOf(identity: TestIdentity): Svid {
  return {
    keyPem: identity.key,
    chainPem: identity.cert,
    spiffeId: identity.uri,
    notBefore: 0,
    notAfter: 0,
  };
}

/** The documents of these services, compiled for `service`. */
export function snapshotOf(
  services: readonly ServiceSpec[],
  mesh: Partial<MeshDocument> = {},
  self = "web",
): Snapshot {
  const documents = new Map<string, object>();
  documents.set("mesh", {
    ...{ trustDomain: TRUST_DOMAIN, bundle: [authority.root], configKeys: [] },
    ...{ outbound: "REGISTRY_ONLY", ...mesh },
  });
  for (const spec of services) {
    const port: OutPort = {
      port: spec.port,
      protocol: spec.protocol ?? (spec.detect === true ? "tcp" : "http"),
      ...(spec.detect === true ? { detect: true as const } : {}),
      policy: { ...POLICY, ...spec.policy },
      ...(spec.routes === undefined ? {} : { routes: spec.routes }),
    };
    documents.set(`out.default.${spec.service}`, {
      ...{ namespace: "default", service: spec.service, ports: [port] },
      ...{ subsets: spec.subsets ?? [], shards: 1 },
    });
    documents.set(`eps.default.${spec.service}.0`, {
      ...{ namespace: "default", service: spec.service, shard: 0 },
      endpoints: spec.endpoints.map((endpoint, i) => ({
        ...{ id: `${spec.service}-${i}`, address: "127.0.0.1", ports: { [spec.port]: spec.port } },
        ...{ labels: {}, locality: "", weight: 1, ...endpoint },
      })),
    });
  }
  return compileSnapshot(documents, { namespace: "default", service: self });
}

export class TestPlane {
  readonly metrics = new Metrics();
  readonly plane: DataPlane;
  readonly meshPort: number;
  readonly asked: string[] = [];
  /** What `access` answers, and does. */
  onAccess: (service: string) => boolean = () => false;

  constructor(more: Partial<DataPlaneOptions> = {}) {
    this.plane = new DataPlane({
      metrics: this.metrics,
      now: () => performance.now(),
      random: () => Math.random(),
      ownPorts: new Set(),
      ...more,
    });
    this.meshPort = this.plane.listenMesh("127.0.0.1", 0);
  }

  workload(service: string, app: readonly AppPort[] = [], mesh?: Snapshot): TestWorkload {
    const identity = new Cell<Svid | undefined>(svidOf(authority.issue(service)));
    const snapshot = new Cell<Snapshot | undefined>(mesh ?? snapshotOf([], {}, service));
    const local = this.plane.addWorkload({
      ...{ namespace: "default", service, app, identity, snapshot },
      access: async (namespace, name) => {
        this.asked.push(`${namespace}/${name}`);
        return this.onAccess(name);
      },
    });
    const outbound = this.plane.listenOutbound(local, "127.0.0.1", 0);
    return { local, identity, snapshot, outbound, url: `http://127.0.0.1:${outbound}` };
  }

  /** An endpoint of `service` behind this plane's mesh port. */
  endpoint(service: string, more: Partial<EndpointDocument> = {}): Partial<EndpointDocument> {
    return {
      meshPort: this.meshPort,
      identity: `spiffe://${TRUST_DOMAIN}/ns/default/sa/${service}`,
      ...more,
    };
  }
}

/** Sends raw text and returns all that comes back until the peer closes or `idleMs` pass. */
export function rawTalk(port: number, text: string, idleMs = 300): Promise<string> {
  return new Promise((resolve) => {
    let answer = "";
    let timer: ReturnType<typeof setTimeout> | undefined;
    Bun.connect({
      hostname: "127.0.0.1",
      port,
      socket: {
        open(socket) {
          socket.write(Buffer.from(text, "latin1"));
          timer = setTimeout(() => socket.terminate(), idleMs);
        },
        data(socket, chunk) {
          answer += chunk.toString("latin1");
          clearTimeout(timer);
          timer = setTimeout(() => socket.terminate(), idleMs);
        },
        close() {
          clearTimeout(timer);
          resolve(answer);
        },
      },
    });
  });
}
