/** Our side of the benchmark: a control plane, and proxies pinned to the proxy core. */
import { type Sidecar, TestMesh, takePorts, until, WEFT } from "../../test/harness/mesh.ts";
import { LOAD_CORE, PROXY_CORE } from "./load.ts";
import type { Ports } from "./peers.ts";

export interface BenchMesh {
  readonly mesh: TestMesh;
  /** Two hops: the caller's proxy and the service's. */
  readonly front: Sidecar;
  readonly back: Sidecar;
  /** Local port of the opaque TCP upstream. */
  readonly tcpPort: number;
  /** One hop: a proxy whose upstream has none of its own. */
  readonly plain: Sidecar;
  /** Local port of an opaque TCP upstream without a proxy of its own. */
  readonly plainTcpPort: number;
}

const PLAIN_SERVICES = ({ backend, iperf }: Ports) => `
apiVersion: weft.dev/v1
kind: Service
metadata: { name: legacy }
spec:
  ports: [{ port: 80, protocol: http }]
---
apiVersion: weft.dev/v1
kind: Workload
metadata: { name: legacy-1 }
spec:
  service: legacy
  address: 127.0.0.1
  ports: { "80": ${backend} }
---
apiVersion: weft.dev/v1
kind: Service
metadata: { name: bytes }
spec:
  ports: [{ port: 9000, protocol: tcp }]
---
apiVersion: weft.dev/v1
kind: Workload
metadata: { name: bytes-1 }
spec:
  service: bytes
  address: 127.0.0.1
  ports: { "9000": ${iperf} }
`;

/** A sidecar pinned to the proxy core from its first instruction. */
async function pinned(mesh: TestMesh, service: string, args: readonly string[]): Promise<Sidecar> {
  const base = takePorts(60);
  const data = `${mesh.folder}/${service}`;
  return mesh.proxy(
    [
      ...["taskset", "-c", PROXY_CORE, WEFT, "--mode=sidecar", `--service=${service}`],
      ...[`--controlplane=${mesh.api}`, `--token-file=${await mesh.token()}`],
      ...[`--data=${data}`, `--port-base=${base}`, ...args],
    ],
    data,
    base,
  );
}

export async function startMesh(ports: Ports): Promise<BenchMesh> {
  const mesh = await TestMesh.start();
  // The control plane keeps out of the way of the proxies under test.
  Bun.spawnSync(["taskset", "-a", "-p", "-c", LOAD_CORE, String(mesh.controlplane.pid)]);
  await mesh.apply(PLAIN_SERVICES(ports));
  const tcpPort = takePorts(1);
  const back = await pinned(mesh, "back", [
    `--app=8080=${ports.backend}/http`,
    `--app=9000=${ports.iperf}/tcp`,
  ]);
  const front = await pinned(mesh, "front", [`--upstream=back/9000:${tcpPort}`]);
  const plainTcpPort = takePorts(1);
  const plain = await pinned(mesh, "plain", [`--upstream=bytes/9000:${plainTcpPort}`]);
  const answers = async (sidecar: Sidecar, host: string) =>
    (await fetch(sidecar.outbound, { headers: { host } })).ok;
  await until("two hops answer", () => answers(front, "back:8080"));
  await until("one hop answers", () => answers(plain, "legacy"));
  return { mesh, front, back, tcpPort, plain, plainTcpPort };
}
