/**
 * What a workload may do on NATS: hear the documents it was granted, read their current values,
 * and speak on its own subjects. No consumer, no stream right, nobody else's subject or inbox.
 */

/** Subject lists of a user JWT. */
export interface NatsRights {
  readonly publish: readonly string[];
  readonly subscribe: readonly string[];
}

/** One running workload; its subjects end in `<namespace>.<service>.<instance>`. */
export interface InstanceName {
  readonly namespace: string;
  readonly service: string;
  readonly instance: string;
}

export const BUCKET = "weft-config";

/** Subject on which puts of a document arrive. */
export function documentSubject(key: string): string {
  return `$KV.${BUCKET}.${key}`;
}

/** Subject that asks for the current value of a document. */
export function directGetSubject(key: string): string {
  return `$JS.API.DIRECT.GET.KV_${BUCKET}.${documentSubject(key)}`;
}

export function subjectId(name: InstanceName): string {
  return `${name.namespace}.${name.service}.${name.instance}`;
}

/** Prefix of reply subjects: names the whole identity, so that no two workloads share one. */
export function inboxPrefix(name: InstanceName): string {
  return `_INBOX_${subjectId(name)}`;
}

/** Keys every workload reads: `head`, `mesh`, its namespace's policy and its own `in`. */
export function ownKeys(name: InstanceName): string[] {
  return ["head", "mesh", `ns.${name.namespace}`, `in.${name.namespace}.${name.service}`];
}

/**
 * Rights of one workload. `keys` are granted besides its own; a key may end in `.*`, which covers
 * every shard of one service's endpoints. (The server lets its holder subscribe to `.>` in the
 * same place as well; no key lies deeper.)
 */
export function userRights(name: InstanceName, keys: readonly string[]): NatsRights {
  const id = subjectId(name);
  const granted = [...new Set([...ownKeys(name), ...keys])].filter(isGrantable);
  return {
    publish: [
      ...granted.map(directGetSubject),
      `weft.rpc.register.${id}`,
      `weft.rpc.renew.${id}`,
      `weft.rpc.deregister.${id}`,
      `weft.ack.${id}`,
      `weft.stats.${id}`,
    ],
    subscribe: [...granted.map(documentSubject), `${inboxPrefix(name)}.>`],
  };
}

/** A literal key, or the shards of one service; anything wider is dropped. */
function isGrantable(key: string): boolean {
  return /^[a-z][a-z0-9-]*(\.[a-z0-9-]+)*$/.test(key) || /^eps(\.[a-z0-9-]+){2}\.\*$/.test(key);
}
