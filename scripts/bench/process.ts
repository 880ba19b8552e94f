/** Figures of a process: its memory as the kernel accounts it, and how fast it is ready. */
import { readFileSync } from "node:fs";
import { type TestMesh, takePorts, until, WEFT } from "../../test/harness/mesh.ts";

/** Megabytes. */
export interface MemoryFigure {
  readonly rss: number;
  /** Shared pages counted by share: what one more such process costs the machine. */
  readonly pss: number;
  readonly anonymous: number;
}

export function memoryOf(pid: number): MemoryFigure {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  const kilobytes = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(text)?.[1]);
  return {
    rss: kilobytes("Rss") / 1024,
    pss: kilobytes("Pss") / 1024,
    anonymous: kilobytes("Anonymous") / 1024,
  };
}

/** Milliseconds from exec to /readyz of a sidecar that has its certificate and set on disk. */
export async function startTimes(mesh: TestMesh, count: number): Promise<number[]> {
  const base = takePorts(60);
  const data = `${mesh.folder}/starter`;
  const token = await mesh.token();
  const command = [
    ...[WEFT, "--mode=sidecar", "--service=starter", `--controlplane=${mesh.api}`],
    ...[`--token-file=${token}`, `--data=${data}`, `--port-base=${base}`],
  ];
  const times: number[] = [];
  for (let i = 0; i <= count; i++) {
    const started = performance.now();
    const sidecar = await mesh.proxy(command, data, base, true);
    await until("ready", async () => (await fetch(`${sidecar.admin}/readyz`)).ok);
    if (i > 0) times.push(performance.now() - started);
    await Bun.sleep(500);
    sidecar.kill("SIGTERM");
    await sidecar.exited;
  }
  return times;
}
