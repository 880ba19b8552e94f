import { expect, test } from "bun:test";
import { AccessLog, type AccessRecord } from "./access-log.ts";
import { type Edge, Golden } from "./golden.ts";
import { Metrics } from "./metrics.ts";
import { newIdLines, newRequestId, newTraceparentLine } from "./trace.ts";

const EDGE: Edge = {
  ...{ direction: "inbound", workload: "default/cart", source: "default/web" },
  ...{ peer: "default/cart", port: "80", subset: "", tls: "mtls" },
};
const LABELS =
  'direction="inbound",workload="default/cart",source="default/web",peer="default/cart",' +
  'port="80",subset="",tls="mtls"';

test("requests, reasons and durations of an edge", () => {
  const metrics = new Metrics();
  const meter = new Golden(metrics).meter(EDGE);
  meter.record(200, "", 0.7);
  meter.record(200, "", 40);
  meter.record(503, "no_endpoint", 1);
  const text = metrics.render();
  expect(text).toContain(`weft_requests_total{${LABELS},code="200",reason=""} 2\n`);
  expect(text).toContain(`weft_requests_total{${LABELS},code="503",reason="no_endpoint"} 1\n`);
  expect(text).toContain(`weft_request_duration_seconds_bucket{${LABELS},le="0.001"} 2\n`);
  expect(text).toContain(`weft_request_duration_seconds_bucket{${LABELS},le="+Inf"} 3\n`);
  expect(text).toContain(`weft_request_duration_seconds_count{${LABELS}} 3\n`);
});

test("labels are escaped, and series are bounded", () => {
  const metrics = new Metrics();
  const counters = metrics.counters("weft_odd_total", "Odd values.", ["name"]);
  counters.slot('a"b\\c\nd').value++;
  expect(metrics.render()).toContain('weft_odd_total{name="a\\"b\\\\c\\nd"} 1\n');
  for (let i = 0; i < 5000; i++) counters.slot(`n${i}`).value++;
  const lines = metrics.render().split("\n");
  expect(lines.length).toBeLessThan(4010);
  expect(lines.some((line) => line.startsWith('weft_odd_total{name="other"} 100'))).toBe(true);
});

test("ids have the shapes others expect", () => {
  const seen = new Set<string>();
  for (let i = 0; i < 1000; i++) {
    const lines = newIdLines(Math.random);
    const [id = "", trace = "", rest] = lines.split("\r\n");
    expect(id).toMatch(
      /^x-request-id: [0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
    );
    expect(trace).toMatch(/^traceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-00$/);
    expect(rest).toBe("");
    seen.add(id).add(trace);
  }
  expect(seen.size).toBe(2000);
  expect(newRequestId(() => 0)).toBe("00000000-0000-4000-8000-000000000000");
  expect(newTraceparentLine(() => 0)).not.toMatch(/-0+-/);
});

test("the access log writes whole JSON lines in batches", () => {
  let written = "";
  const log = new AccessLog(
    (text) => {
      written += text;
    },
    () => 0,
  );
  const record: AccessRecord = {
    direction: "inbound",
    workload: "default/cart",
    source: "default/web",
    peer: "",
    method: "GET",
    authority: "cart",
    path: '/"',
    status: 200,
    reason: "",
    durationMs: 1,
    endpoint: "",
    attempts: 1,
    bytesReceived: 0,
    bytesSent: 2,
    requestId: "",
    trace: "",
    route: "",
  };
  log.record(record);
  expect(written).toBe("");
  log.stop();
  expect(JSON.parse(written)).toMatchObject({ time: "1970-01-01T00:00:00.000Z", path: '/"' });
});
