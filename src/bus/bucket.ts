/** The JetStream stream behind the bucket of current documents. */
import { BUCKET, documentSubject } from "../identity/rights.ts";
import { isRecord } from "./bus-error.ts";

/** A JetStream API call; undefined when it failed with one of the expected error numbers. */
export type JetStreamCall = (
  call: string,
  body: object,
  expected?: readonly number[],
) => Promise<Record<string, unknown> | undefined>;

const STREAM = `KV_${BUCKET}`;
/** JetStream's error number for "stream not found". */
const NOT_FOUND = 10059;
/** … for "a stream of that name exists with another configuration". */
const EXISTS = 10058;
/** … for "no suitable peers for placement" and "replicas > 1 not supported". */
const TOO_FEW_SERVERS = [10005, 10074];
/** One server of a cluster may go without anybody waiting for it. */
const REPLICAS = 3;

/** Makes the stream what proxies need; true when it was not there before. */
export async function ensureBucket(call: JetStreamCall, clustered: boolean): Promise<boolean> {
  const state = await call(`STREAM.INFO.${STREAM}`, {}, [NOT_FOUND]);
  if (state === undefined) {
    return (clustered && (await create(call, REPLICAS))) || (await create(call, 1));
  }
  const config = isRecord(state["config"]) ? state["config"] : {};
  const fewer = clustered && config["num_replicas"] === 1;
  if (config["allow_direct"] === true && !fewer) return false;
  const change = { allow_direct: true, ...(fewer ? { num_replicas: REPLICAS } : {}) };
  // With too few servers one copy serves as well, until the next look.
  await call(`STREAM.UPDATE.${STREAM}`, { ...config, ...change }, TOO_FEW_SERVERS);
  return false;
}

/** False when it exists by now, or there are too few servers. */
async function create(call: JetStreamCall, replicas: number): Promise<boolean> {
  const body = {
    name: STREAM,
    subjects: [documentSubject(">")],
    retention: "limits",
    storage: "file",
    discard: "new",
    max_msgs_per_subject: 1,
    max_msgs: -1,
    max_bytes: -1,
    max_age: 0,
    max_consumers: -1,
    num_replicas: replicas,
    allow_direct: true,
    allow_rollup_hdrs: true,
    deny_delete: true,
  };
  const made = await call(`STREAM.CREATE.${STREAM}`, body, [EXISTS, ...TOO_FEW_SERVERS]);
  return made !== undefined;
}
