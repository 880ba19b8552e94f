/** What validation finds in a set of documents, and the findings several checks share. */
import { carriesHttp } from "./precedence.ts";
import type { Path, Resource, ServiceResource } from "./resource.ts";
import { closest } from "./suggest.ts";

/** Something wrong with `resource` at `path`; `lenient` tolerates those so marked. */
export interface Finding {
  readonly resource: Resource;
  readonly path: Path;
  readonly value: string;
  readonly code: string;
  readonly reason: string;
  readonly fix: string;
  readonly tolerable: boolean;
}

export type Report = (
  path: Path,
  value: string | number,
  code: string,
  reason: string,
  fix: string,
  tolerable?: boolean,
) => void;

/** Collects findings about one resource. */
export function reporter(resource: Resource, findings: Finding[]): Report {
  return (path, value, code, reason, fix, tolerable = false) => {
    findings.push({ resource, path, value: String(value), code, reason, fix, tolerable });
  };
}

/** A reference to a service that has no document. */
export function noService(
  path: Path,
  name: string,
  namespace: string,
  services: ReadonlyMap<string, ServiceResource>,
  report: Report,
): void {
  const near = [...services.values()]
    .filter((service) => service.metadata.namespace === namespace)
    .map((service) => service.metadata.name);
  const elsewhere = [...services.values()].find((service) => service.metadata.name === name);
  const guess = closest(name, near);
  const fix =
    guess !== undefined
      ? `did you mean ${guess}?`
      : elsewhere !== undefined
        ? `there is one in namespace ${elsewhere.metadata.namespace}`
        : `apply a Service named ${name} in namespace ${namespace} first, or with it`;
  const reason = `there is no Service ${name} in namespace ${namespace}`;
  report(path, name, "unknown_service", reason, fix, true);
}

/** A reference to a port that a service does not have. */
export function noPort(path: Path, port: number, service: ServiceResource, report: Report): void {
  const ports = service.spec.ports.map((known) => known.port);
  const reason = `Service ${service.metadata.name} has no port ${port}`;
  const fix = `use ${ports.join(" or ")}, or add the port to the Service`;
  report(path, port, "unknown_port", reason, fix, true);
}

/** A route that names a port which does not carry HTTP. */
export function notHttp(path: Path, port: number, service: ServiceResource, report: Report): void {
  if (carriesHttp(service, port)) return;
  const declared = service.spec.ports.find((known) => known.port === port)?.protocol;
  if (declared === undefined) return;
  const reason = `port ${port} of Service ${service.metadata.name} is declared ${declared}`;
  const fix = "declare the port http, http2 or grpc, or use another one";
  report(path, port, "wrong_protocol", reason, fix);
}
