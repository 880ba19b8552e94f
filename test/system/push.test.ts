/** Apply until 20 sidecars have acknowledged: the figures are printed, the promise is 3 × wide. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { type Sidecar, TestMesh } from "../harness/mesh.ts";

const fleet = process.env["WEFT_LONG"] === "1" ? 20 : 5;
const rounds = process.env["WEFT_LONG"] === "1" ? 50 : 8;

let mesh: TestMesh;

beforeAll(async () => {
  mesh = await TestMesh.start();
  const starts: Promise<Sidecar>[] = [];
  for (let i = 0; i < fleet; i++) starts.push(mesh.sidecar({ service: `s${i}` }));
  await Promise.all(starts);
}, 120_000);

afterAll(async () => {
  await mesh?.stop();
});

function document(round: number): string {
  return `apiVersion: weft.dev/v1
kind: Service
metadata: { name: pushed }
spec:
  ports: [{ port: ${8000 + round}, protocol: http }]
`;
}

test(`apply is acknowledged by ${fleet} sidecars`, async () => {
  const times: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const started = performance.now();
    await mesh.apply(document(round), "--wait", "--timeout=9s");
    times.push(performance.now() - started);
    // A proxy acknowledges at most once per 250 ms: the next round must not wait for the last.
    await Bun.sleep(300);
  }
  times.sort((a, b) => a - b);
  const at = (q: number) =>
    Math.round(times[Math.min(times.length - 1, Math.floor(q * times.length))] ?? 0);
  console.log(
    `apply --wait to ${fleet} sidecars, the command itself included: p50 ${at(0.5)} ms, p99 ${at(0.99)} ms`,
  );
  expect(times.length).toBe(rounds);
}, 300_000);
