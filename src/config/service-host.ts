/** Names of the world outside that a Service answers to, as `api.example.com`. */
import { isIP } from "node:net";
import * as v from "valibot";
import { hostname, told } from "./fields.ts";

/** Every proxy is told all of them in one message. */
export const HOSTS_MAX = 4096;

export const serviceHost = v.pipe(
  hostname,
  v.check(
    (host) => host.includes(".") && isIP(host) === 0,
    told("invalid_hostname", "is not a full host name", "write it like api.example.com"),
  ),
  v.check(
    (host) => !host.endsWith(".mesh") && !host.endsWith(".svc.cluster.local"),
    told(
      "invalid_hostname",
      "is a name that the mesh gives itself",
      "leave it out: a Service has these names already",
    ),
  ),
);
