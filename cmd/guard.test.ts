import { expect, test } from "bun:test";

/** A process that is guarded, and meets what nobody catches. */
const PROGRAM = `
import { createServer, connect } from "node:net";
import { EventEmitter } from "node:events";
import { guard } from "${import.meta.dir}/guard.ts";
import { countCallbackError, guarded } from "${import.meta.dir}/../src/net/boundary.ts";
import { createLogger } from "${import.meta.dir}/../src/telemetry/log.ts";
import { Metrics } from "${import.meta.dir}/../src/telemetry/metrics.ts";

const metrics = new Metrics();
const write = (line) => process.stderr.write(line);
guard(createLogger({ format: "json", level: "info", now: Date.now, write }), metrics);
const bug = () => { throw new Error("a bug"); };
setTimeout(bug, 1);
setImmediate(bug);
queueMicrotask(bug);
void Promise.reject(new Error("a failure"));
void (async () => bug())();
new EventEmitter().on("x", bug);
setTimeout(() => new EventEmitter().emit("error", new Error("an event")), 1);
const server = createServer(bug).listen(0, "127.0.0.1", () => {
  connect(server.address().port, "127.0.0.1").on("error", () => {});
});
for (let i = 0; i < 100; i++) guarded("tick", undefined, bug);
setTimeout(() => {
  process.stdout.write(metrics.render());
  process.exit(0);
}, 200);
`;

test("what nobody catches ends nothing, is counted, and logged not too often", async () => {
  const child = Bun.spawn([process.execPath, "-e", PROGRAM], { stdout: "pipe", stderr: "pipe" });
  const [out, log] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  expect(await child.exited).toBe(0);
  expect(out).toContain('weft_callback_errors_total{site="tick"} 100\n');
  expect(out).toContain('weft_callback_errors_total{site="uncaught"} 5\n');
  expect(out).toContain('weft_callback_errors_total{site="unhandled"} 2\n');
  const records = log
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(records.map(({ site }) => site).sort()).toEqual(["tick", "uncaught", "unhandled"]);
  expect(records[0].stack).toContain("a bug");
});
