/**
 * Who gets an identity: joining with a token, renewing with the current certificate, and asking
 * for the right to read a service that was not declared. Free of HTTP; the API calls it.
 */
import { randomBytes } from "node:crypto";
import { isLoopback } from "../bus/nats-config.ts";
import type { Resource, ServiceResource } from "../config/resource.ts";
import type { Authority, IssuedLeaf } from "../identity/ca.ts";
import { requestedKey } from "../identity/csr.ts";
import type { NatsAuthority } from "../identity/nats-auth.ts";
import { base32, isNkeyPublic } from "../identity/nkey.ts";
import { type InstanceName, subjectId, userRights } from "../identity/rights.ts";
import {
  CONTROL_NAMESPACE,
  isName,
  parseWorkloadIdentity,
  serviceDnsNames,
  spiffeIdOf,
} from "../identity/spiffe.ts";
import { Allowance } from "../std/allowance.ts";
import { appendAudit } from "../store/audit.ts";
import { putCertificate } from "../store/certificates.ts";
import { allResources } from "../store/revisions.ts";
import type { Grant, TokenRow } from "../store/rows.ts";
import type { Store } from "../store/store.ts";
import { useToken } from "../store/tokens.ts";
import { grantsOfInstance, putGrant, putJoined, workload } from "../store/workloads.ts";
import { grantsOf } from "./documents.ts";
import { checkToken, refuse, usedUp } from "./join-token.ts";

export interface IssuerOptions {
  readonly store: Store;
  readonly authority: Authority;
  readonly nats: NatsAuthority;
  /** Keys that may sign configuration, as proxies list them. */
  readonly configKeys: () => readonly { readonly kid: string; readonly key: string }[];
  /**
   * Of the bus, several with commas; an unspecified host (0.0.0.0) or, for callers from elsewhere,
   * a loopback one becomes the one the caller reached.
   */
  readonly natsUrl: string;
  /** Roots of a bus that is not the mesh's own, PEM; none: public ones. */
  readonly natsCa?: readonly string[];
  readonly svidTtlMs: number;
  readonly now: () => number;
}

export interface JoinRequest {
  /** The whole token, `weft_…`. */
  readonly token: string;
  readonly csr: string;
  /** Public NATS user key of the workload, `U…`. */
  readonly natsKey: string;
  readonly service: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  /** Services it declares to call. */
  readonly upstreams?: readonly Grant[];
  /** Instance id of an earlier join from the same data folder. */
  readonly instance?: string;
}

export interface RenewRequest {
  readonly instance: string;
  readonly csr: string;
  readonly natsKey: string;
}

export interface AccessRequest {
  readonly instance: string;
  readonly natsKey: string;
  readonly service: string;
  readonly namespace: string;
}

/** Where a request came from, as the API saw it. */
export interface RequestOrigin {
  /** Host part of the URL the caller used, without port. */
  readonly host?: string;
}

export interface AccessReply {
  readonly natsJwt: string;
  /** Document keys the JWT opens besides the workload's own; `eps.<ns>.<svc>.*` = all shards. */
  readonly keys: readonly string[];
  /** Unix milliseconds; the JWT ends then. */
  readonly expiresAt: number;
}

export interface JoinReply extends AccessReply {
  /** Leaf and intermediate, PEM. */
  readonly chain: string;
  readonly bundle: readonly string[];
  readonly configKeys: readonly { readonly kid: string; readonly key: string }[];
  readonly natsUrl: string;
  /** Roots of the bus; absent: those of the mesh. */
  readonly natsCa?: readonly string[];
  readonly instance: string;
  readonly trustDomain: string;
  /** Declared services this workload may not see. */
  readonly refused: readonly (Grant & { readonly reason: string })[];
}

/** All throw a `Failure` with its HTTP status. */
export interface Issuer {
  join(request: JoinRequest, origin?: RequestOrigin): Promise<JoinReply>;
  /** `peer`: the verified SPIFFE ID of the client's certificate. */
  renew(peer: string, request: RenewRequest, origin?: RequestOrigin): Promise<JoinReply>;
  access(peer: string, request: AccessRequest): AccessReply;
}

interface Member extends InstanceName {
  readonly serviceAccount: string;
  readonly identity: string;
  readonly tokenId: string;
}

const MAX_UPSTREAMS = 500;
/** The JWT that lists them must fit a line that the server accepts. */
const MAX_GRANTS = 2_000;

function checkName(what: string, value: string): void {
  if (isName(value)) return;
  throw refuse(
    400,
    "name_invalid",
    `${what} ${JSON.stringify(value)} is not a name`,
    "use at most 63 lower-case letters, digits and inner dashes",
  );
}

function checkNatsKey(key: string): void {
  if (isNkeyPublic("user", key)) return;
  throw refuse(
    400,
    "nats_key_invalid",
    "natsKey is not a public NATS user key",
    "send the key that begins with U; its seed stays with the workload",
  );
}

function findService(resources: readonly Resource[], of: Grant): ServiceResource | undefined {
  return resources.find(
    (resource): resource is ServiceResource =>
      resource.kind === "Service" &&
      resource.metadata.namespace === of.namespace &&
      resource.metadata.name === of.service,
  );
}

/** A service sees its own namespace, what is visible to all, and what names its namespace. */
function isVisible(service: ServiceResource | undefined, namespace: string): boolean {
  const visibility = service?.spec.visibility;
  if (service === undefined || visibility === undefined) return true;
  if (service.metadata.namespace === namespace) return true;
  return visibility.includes("*") || visibility.includes(namespace);
}

/** Keys of all the services granted to an instance that it may (still) see. */
function grantedKeys(store: Store, resources: readonly Resource[], member: InstanceName): string[] {
  const keys = new Set<string>();
  for (const grant of grantsOfInstance(store, member.instance)) {
    if (!isVisible(findService(resources, grant), member.namespace)) continue;
    for (const key of grantsOf(resources, grant)) keys.add(key);
  }
  return [...keys].sort();
}

function resourcesOf(store: Store): Resource[] {
  return allResources(store).map((each) => each.resource);
}

function natsUrlFor(url: string, origin: RequestOrigin | undefined): string {
  const host = origin?.host?.replace(/^\[(.*)\]$/, "$1");
  if (host === undefined) return url;
  const here = /\/\/(0\.0\.0\.0|\[::\]|localhost|127(?:\.\d+){3}|\[::1\])(?=[:,]|$)/g;
  return url.replace(here, (whole, name: string) => {
    // The caller's own loopback is not the control plane's, unless it is on the same host.
    if (isLoopback(host) && name !== "0.0.0.0" && name !== "[::]") return whole;
    return `//${host.includes(":") ? `[${host}]` : host}`;
  });
}

function issueAccess(
  options: IssuerOptions,
  member: Member,
  natsKey: string,
  expiresAt: number,
): AccessReply {
  const keys = grantedKeys(options.store, resourcesOf(options.store), member);
  const natsJwt = options.nats.issueUser(
    {
      name: subjectId(member),
      publicKey: natsKey,
      rights: userRights(member, keys),
      expiresAt,
    },
    options.now(),
  );
  return { natsJwt, keys, expiresAt };
}

function issueLeaf(options: IssuerOptions, member: Member, csr: string): Promise<IssuedLeaf> {
  const { authority, svidTtlMs } = options;
  return authority.issue({
    csrPem: csr,
    spiffeId: member.identity,
    dnsNames: serviceDnsNames(authority.trustDomain, member.namespace, member.service),
    ttlMs: svidTtlMs,
  });
}

/** Inside a transaction: the member, its certificate, and an audit entry. */
function record(
  options: IssuerOptions,
  member: Member,
  leaf: IssuedLeaf,
  action: "join" | "renew",
): void {
  const { store } = options;
  const t = options.now();
  const { namespace, service, instance, serviceAccount, identity, tokenId } = member;
  if (action === "join") {
    putJoined(store, {
      instance,
      namespace,
      service,
      serviceAccount,
      identity,
      tokenId,
      joinedAt: t,
    });
  }
  putCertificate(store, {
    serial: leaf.serial,
    instance,
    identity,
    notBefore: leaf.notBefore,
    notAfter: leaf.notAfter,
    issuedAt: t,
  });
  appendAudit(store, {
    t,
    actor: action === "join" ? `token:${tokenId}` : identity,
    action,
    subject: subjectId(member),
    detail: { identity, serial: leaf.serial },
  });
}

function reply(
  options: IssuerOptions,
  member: Member,
  leaf: IssuedLeaf,
  access: AccessReply,
  refused: JoinReply["refused"],
  origin: RequestOrigin | undefined,
): JoinReply {
  return {
    chain: leaf.chainPem,
    bundle: options.authority.bundle,
    configKeys: options.configKeys(),
    natsUrl: natsUrlFor(options.natsUrl, origin),
    ...(options.natsCa === undefined ? {} : { natsCa: options.natsCa }),
    instance: member.instance,
    trustDomain: options.authority.trustDomain,
    refused,
    ...access,
  };
}

function memberFor(options: IssuerOptions, request: JoinRequest, row: TokenRow): Member {
  const { namespace, service, serviceAccount } = request;
  const identity = spiffeIdOf(options.authority.trustDomain, namespace, serviceAccount);
  const earlier = request.instance === undefined ? undefined : find(options, request.instance);
  const same =
    earlier?.identity === identity &&
    earlier.namespace === namespace &&
    earlier.service === service;
  const instance = same ? earlier.instance : base32(randomBytes(7)).slice(0, 10).toLowerCase();
  return { namespace, service, serviceAccount, identity, instance, tokenId: row.id };
}

function find(options: IssuerOptions, instance: string): Member | undefined {
  return workload(options.store, instance);
}

async function join(
  options: IssuerOptions,
  request: JoinRequest,
  origin: RequestOrigin | undefined,
): Promise<JoinReply> {
  const { store } = options;
  // The token first: someone without one learns nothing else.
  const row = checkToken(store, request, options.now());
  checkName("service", request.service);
  checkName("namespace", request.namespace);
  checkName("service account", request.serviceAccount);
  if (request.namespace === CONTROL_NAMESPACE) {
    throw refuse(
      403,
      "namespace_reserved",
      `namespace ${CONTROL_NAMESPACE} belongs to the control plane`,
      "join in another namespace",
    );
  }
  checkNatsKey(request.natsKey);
  requestedKey(request.csr);
  const member = memberFor(options, request, row);
  const { granted, refused } = sortUpstreams(options, request);
  const leaf = await issueLeaf(options, member, request.csr);
  store.write(() => {
    const t = options.now();
    if (!useToken(store, row.id, t)) throw usedUp(row);
    record(options, member, leaf, "join");
    for (const grant of granted) putGrant(store, member.instance, grant, t);
  });
  const access = issueAccess(options, member, request.natsKey, leaf.notAfter);
  return reply(options, member, leaf, access, refused, origin);
}

/** Declared upstreams that may be granted, and those that may not. */
function sortUpstreams(options: IssuerOptions, request: JoinRequest) {
  const upstreams = request.upstreams ?? [];
  if (upstreams.length > MAX_UPSTREAMS) {
    throw refuse(
      400,
      "too_many_upstreams",
      `${upstreams.length} upstreams are declared; the limit is ${MAX_UPSTREAMS}`,
      "declare fewer: the others are granted on first use",
    );
  }
  const resources = resourcesOf(options.store);
  const granted: Grant[] = [];
  const refused: (Grant & { readonly reason: string })[] = [];
  for (const { namespace, service } of upstreams) {
    checkName("upstream namespace", namespace);
    checkName("upstream service", service);
    const visible = isVisible(findService(resources, { namespace, service }), request.namespace);
    if (visible) granted.push({ namespace, service });
    else refused.push({ namespace, service, reason: "not_visible" });
  }
  return { granted, refused };
}

/** The member behind a certificate; the certificate proves the identity, the store the rest. */
function requireMember(options: IssuerOptions, peer: string, instance: string): Member {
  const identity = parseWorkloadIdentity(peer);
  if (identity === undefined || identity.trustDomain !== options.authority.trustDomain) {
    throw refuse(
      401,
      "identity_invalid",
      `${JSON.stringify(peer)} is not a workload of this mesh`,
      "present the certificate that the control plane issued",
    );
  }
  const member = find(options, instance);
  if (member === undefined) {
    throw refuse(
      404,
      "instance_unknown",
      `instance ${JSON.stringify(instance)} is not known here`,
      "join again with a token",
    );
  }
  if (member.identity === peer) return member;
  throw refuse(
    403,
    "identity_mismatch",
    `instance ${instance} does not belong to ${peer}`,
    "use the certificate and the instance id of the same data folder",
  );
}

async function renew(
  options: IssuerOptions,
  peer: string,
  request: RenewRequest,
  origin: RequestOrigin | undefined,
): Promise<JoinReply> {
  const member = requireMember(options, peer, request.instance);
  checkNatsKey(request.natsKey);
  const leaf = await issueLeaf(options, member, request.csr);
  options.store.write(() => record(options, member, leaf, "renew"));
  const access = issueAccess(options, member, request.natsKey, leaf.notAfter);
  return reply(options, member, leaf, access, [], origin);
}

function access(options: IssuerOptions, peer: string, request: AccessRequest): AccessReply {
  const { store } = options;
  const member = requireMember(options, peer, request.instance);
  checkNatsKey(request.natsKey);
  const { namespace, service } = request;
  checkName("namespace", namespace);
  checkName("service", service);
  const resource = findService(resourcesOf(store), { namespace, service });
  if (resource === undefined) {
    throw refuse(
      404,
      "service_unknown",
      `there is no service ${service} in namespace ${namespace}`,
      "apply a Service, or start a workload of it",
    );
  }
  const t = options.now();
  const expiresAt = t + options.svidTtlMs;
  const grants = grantsOfInstance(store, member.instance);
  if (grants.length >= MAX_GRANTS) {
    throw refuse(
      403,
      "too_many_grants",
      `instance ${member.instance} already reaches ${MAX_GRANTS} services`,
      "split the workload, or let it join again under a new instance id",
    );
  }
  const known = grants.some((grant) => grant.namespace === namespace && grant.service === service);
  const visible = isVisible(resource, member.namespace);
  if (!known || !visible) {
    store.write(() => {
      if (visible) putGrant(store, member.instance, { namespace, service }, t);
      appendAudit(store, {
        t,
        actor: member.identity,
        action: visible ? "access.granted" : "access.refused",
        subject: `${namespace}/${service}`,
        detail: { instance: member.instance },
      });
    });
  }
  if (!visible) {
    throw refuse(
      403,
      "service_not_visible",
      `service ${namespace}/${service} is not visible to namespace ${member.namespace}`,
      `add ${member.namespace} to the visibility of the Service`,
    );
  }
  return issueAccess(options, member, request.natsKey, expiresAt);
}

/** Each leaves a certificate and an entry in the audit: no workload may fill the disk with them. */
const RENEWALS_MAX = 30;
/** As many as a client that comes to know a big mesh. */
const ACCESSES_MAX = 300;
const STRETCH_MS = 10_000;

export function createIssuer(options: IssuerOptions): Issuer {
  const renewals = new Allowance(RENEWALS_MAX, STRETCH_MS);
  const accesses = new Allowance(ACCESSES_MAX, STRETCH_MS);
  const pace = (allowance: Allowance, peer: string, instance: string) => {
    if (allowance.take(`${peer} ${instance}`, options.now())) return;
    const why = `instance ${instance} asks without pause`;
    throw refuse(429, "too_often", why, `wait ${STRETCH_MS / 1000} s; see why it asks so often`);
  };
  return {
    join: (request, origin) => join(options, request, origin),
    renew: async (peer, request, origin) => {
      pace(renewals, peer, request.instance);
      return renew(options, peer, request, origin);
    },
    access: (peer, request) => {
      pace(accesses, peer, request.instance);
      return access(options, peer, request);
    },
  };
}
