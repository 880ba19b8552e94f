/** A request without ids gets them once: the same for every attempt, and told in the access log. */
import { afterAll, expect, test } from "bun:test";
import { AccessLog } from "../telemetry/access-log.ts";
import { caller, newPlane, plainApp, rawServer, stopAll } from "./servers.fixture.ts";

afterAll(stopAll);

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const RETRIES = {
  ...{ attempts: 2, on: [], codes: [503], backoffMs: 1 },
  ...{ budgetPercent: 20, budgetMinConcurrency: 3 },
};

const idOf = (text: string) => /^x-request-id: (.*)\r$/im.exec(text)?.[1];
const traceOf = (text: string) => /^traceparent: (.*)\r$/im.exec(text)?.[1];

interface Line {
  readonly requestId: string;
  readonly trace: string;
  readonly attempts: number;
}

test("attempts at one request share its ids, which the caller's access log tells", async () => {
  const lines: Line[] = [];
  const accessLog = new AccessLog(
    (text) =>
      lines.push(
        ...text
          .trim()
          .split("\n")
          .map((line) => JSON.parse(line) as Line),
      ),
    Date.now,
  );
  const plane = newPlane({ accessLog });
  const heads: string[] = [];
  const app = rawServer({
    data(socket, text) {
      heads.push(text);
      const status = heads.length === 1 ? "503 Service Unavailable" : "200 OK";
      socket.write(`HTTP/1.1 ${status}\r\ncontent-length: 0\r\n\r\n`);
    },
  });
  const { url } = caller(plane, [plainApp([app.port], { retries: RETRIES })]);
  const own = {
    "x-request-id": "mine",
    traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
  };
  await fetch(url, { headers: { host: "app" } });
  await fetch(url, { headers: { host: "app", ...own } });
  await fetch(url, { headers: { host: "app" } });
  accessLog.stop();
  const [first, again, given, last] = heads.map((head) => ({
    ...{ requestId: idOf(head) ?? "", trace: traceOf(head) ?? "" },
  }));
  expect(again).toEqual(first!);
  expect(given).toEqual({ requestId: own["x-request-id"], trace: own.traceparent });
  expect(last!.requestId).not.toBe(first!.requestId);
  expect(lines[0]!.requestId).toMatch(UUID);
  expect(lines).toMatchObject([
    { ...first, attempts: 2 },
    { ...given, attempts: 1 },
    { ...last, attempts: 1 },
  ]);
});
