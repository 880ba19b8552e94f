/** How service ports meet their callers, as the stored documents have it. */
import type { ResourceAnswer } from "../../src/api/answers.ts";
import { type PortMtlsOf, portMtls } from "../../src/config/port-mtls.ts";
import { type Client, getAll } from "./client.ts";

export async function storedMtls(client: Client): Promise<PortMtlsOf> {
  const found = await Promise.all(
    ["Mesh", "PeerAuth"].map((kind) => getAll<ResourceAnswer>(client, `/v1/resources/${kind}`)),
  );
  return portMtls(found.flat().map(({ resource }) => resource));
}
