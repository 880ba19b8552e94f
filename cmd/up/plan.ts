/**
 * From `Process` documents to the processes of one machine: which proxy stands beside which
 * program, on which ports, and what each program is told.
 */
import { join } from "node:path";
import type { ProcessResource } from "../../src/config/resource.ts";
import { readAppPorts, readUpstream, usage } from "../grammar.ts";
import { type AppPort, nodeAddress, type UpstreamSpec } from "../options.ts";

/** The control plane uses offsets up to 222; a proxy up to 53 and a few beyond when ports are busy. */
const FIRST_PROXY = 300;
const PROXY_STEP = 100;

export interface ProgramPlan {
  /** The document's name, with `.2`, `.3` … for further replicas. */
  readonly name: string;
  readonly namespace: string;
  readonly service: string;
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** Name of the proxy it stands behind. */
  readonly proxy: string;
  readonly app: readonly AppPort[];
  /** Local ports that lead to services, `SERVICE HOST:PORT`. */
  readonly upstreams: readonly string[];
  /** `http://host:port` by which it reaches the mesh. */
  readonly mesh: string;
}

export interface WorkloadPlan {
  readonly service: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly app: readonly string[];
  readonly upstream: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  /** `host:port`; only in a node. */
  readonly out?: string;
}

export interface ProxyPlan {
  readonly name: string;
  readonly mode: "sidecar" | "node";
  readonly portBase: number;
  readonly data: string;
  readonly health: string;
  readonly workloads: readonly WorkloadPlan[];
}

export interface Plan {
  readonly proxies: readonly ProxyPlan[];
  readonly programs: readonly ProgramPlan[];
}

interface Instance {
  readonly name: string;
  readonly resource: ProcessResource;
  /** 0 for the first replica. */
  readonly replica: number;
}

export interface PlanInput {
  readonly processes: readonly ProcessResource[];
  readonly portBase: number;
  readonly data: string;
  /** A port nobody listens on, for replicas beyond the first. */
  readonly freePort: () => number;
}

export function planProcesses(input: PlanInput): Plan {
  const proxies: ProxyPlan[] = [];
  const programs: ProgramPlan[] = [];
  for (const [proxyName, group] of groupsOf(input.processes)) {
    const portBase = input.portBase + FIRST_PROXY + proxies.length * PROXY_STEP;
    if (portBase + PROXY_STEP > 65_535) {
      throw usage(`no ports left for ${proxyName}`, "use a lower --port-base or fewer processes");
    }
    const isNode = group[0]!.resource.spec.node !== undefined;
    const workloads: WorkloadPlan[] = [];
    for (const [index, instance] of group.entries()) {
      const host = isNode ? nodeAddress(index) : "127.0.0.1";
      const made = planInstance(instance, proxyName, host, portBase + 1, input.freePort);
      programs.push(made.program);
      workloads.push(isNode ? { ...made.workload, out: `${host}:${portBase + 1}` } : made.workload);
    }
    proxies.push({
      name: proxyName,
      mode: isNode ? "node" : "sidecar",
      portBase,
      data: join(input.data, "proxies", proxyName),
      health: (isNode ? undefined : group[0]!.resource.spec.readiness) ?? "tcp",
      workloads,
    });
  }
  return { proxies, programs };
}

/** Programs by proxy: one each, or all of one `node`. */
function groupsOf(processes: readonly ProcessResource[]): ReadonlyMap<string, readonly Instance[]> {
  const groups = new Map<string, Instance[]>();
  for (const resource of processes) {
    const { name, namespace } = resource.metadata;
    const { node, replicas = 1, service } = resource.spec;
    const full = namespace === "default" ? name : `${namespace}.${name}`;
    if (node !== undefined && replicas > 1) {
      throw usage(
        `Process ${full}: ${replicas} replicas behind one node proxy`,
        "on one mesh port the service's name selects the workload: leave node or replicas out",
      );
    }
    for (let replica = 0; replica < replicas; replica++) {
      const instance = { name: replica === 0 ? full : `${full}.${replica + 1}`, resource, replica };
      const group = node === undefined ? `${instance.name}-proxy` : `node-${node}`;
      const members = groups.get(group) ?? [];
      if (members.some((other) => sameService(other.resource, resource))) {
        throw usage(
          `Process ${full}: node ${node} already has a workload of service ${service}`,
          "put it on another node, or leave node out",
        );
      }
      groups.set(group, [...members, instance]);
    }
  }
  return groups;
}

function sameService(a: ProcessResource, b: ProcessResource): boolean {
  return a.spec.service === b.spec.service && a.metadata.namespace === b.metadata.namespace;
}

function planInstance(
  instance: Instance,
  proxy: string,
  host: string,
  outboundPort: number,
  freePort: () => number,
): { readonly program: ProgramPlan; readonly workload: WorkloadPlan } {
  const { spec, metadata } = instance.resource;
  const where = `Process ${instance.name}`;
  const declared = readAppPorts(spec.app ?? [], `${where}, app`);
  const app =
    instance.replica === 0 ? declared : declared.map((port) => ({ ...port, port: freePort() }));
  const upstream = (spec.upstreams ?? []).map((text) => {
    const read = readUpstream(text, `${where}, upstreams`);
    return instance.replica === 0 ? read : { ...read, listenPort: freePort() };
  });
  const mesh = `http://${host}:${outboundPort}`;
  const told = { ...upstreamVariables(upstream, host), WEFT_PROXY: mesh };
  const port = app[0] === undefined ? {} : { PORT: String(app[0].port) };
  // A replica cannot take the port that the document fixes for the first.
  const given =
    instance.replica === 0 ? { ...port, ...told, ...spec.env } : { ...told, ...spec.env, ...port };
  const env = Object.fromEntries(
    Object.entries(given).map(([key, value]) => [key, expand(value, given)]),
  );
  return {
    program: {
      name: instance.name,
      namespace: metadata.namespace,
      service: spec.service,
      command: spec.command.map((word) => expand(word, env)),
      env,
      proxy,
      app,
      upstreams: upstream.map((to) => `${serviceText(to)} ${host}:${to.listenPort}`),
      mesh,
    },
    workload: {
      service: spec.service,
      namespace: metadata.namespace,
      serviceAccount: spec.serviceAccount ?? spec.service,
      app: app.map(appText),
      upstream: upstream.map(upstreamText),
      labels: spec.labels ?? {},
    },
  };
}

function appText(app: AppPort): string {
  const host = app.host.includes(":") ? `[${app.host}]` : app.host;
  const protocol = app.protocol === undefined ? "" : `/${app.protocol}`;
  return `${app.servicePort}=${host}:${app.port}${protocol}`;
}

function upstreamText(upstream: UpstreamSpec): string {
  return `${serviceText(upstream)}:${upstream.listenPort}`;
}

function serviceText({ service, namespace, servicePort }: UpstreamSpec): string {
  const within = namespace === undefined ? "" : `.${namespace}`;
  return `${service}${within}${servicePort === undefined ? "" : `/${servicePort}`}`;
}

/** `WEFT_UPSTREAM_DB=127.0.0.1:9191` for each upstream. */
function upstreamVariables(
  upstream: readonly UpstreamSpec[],
  host: string,
): Readonly<Record<string, string>> {
  return Object.fromEntries(
    upstream.map(({ service, listenPort }) => [
      `WEFT_UPSTREAM_${service.toUpperCase().replaceAll("-", "_")}`,
      `${host}:${listenPort}`,
    ]),
  );
}

/** Replaces `${NAME}` by what the program is told; other dollars stay. */
function expand(text: string, env: Readonly<Record<string, string>>): string {
  return text.replace(/\$\{([A-Z_][A-Z0-9_]*)\}/g, (whole, name: string) =>
    Object.hasOwn(env, name) ? env[name]! : whole,
  );
}
