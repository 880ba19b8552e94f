import { afterAll, expect, test } from "bun:test";
import { AccessLog } from "../telemetry/access-log.ts";
import {
  caller,
  eventually,
  newPlane,
  plainApp,
  rawServer,
  stopAll,
  talk,
} from "./servers.fixture.ts";

afterAll(stopAll);

const UPGRADE = "GET / HTTP/1.1\r\nHost: app\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
const SWITCH = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";

test("the log tells how much went through a switched connection", async () => {
  const lines: string[] = [];
  const accessLog = new AccessLog((text) => void lines.push(...text.trim().split("\n")), Date.now);
  const plane = newPlane({ accessLog });
  const app = rawServer({
    data(socket, text) {
      if (text.startsWith("GET ")) socket.write(`${SWITCH}hello`);
      else socket.write(text.toUpperCase());
    },
  });
  const web = caller(plane, [plainApp([app.port])]);
  const { socket, heard } = talk(web.outbound, `${UPGRADE}early`);
  await Bun.sleep(30);
  socket.write(" and late");
  await Bun.sleep(30);
  socket.end();
  expect((await heard).text).toEndWith("\r\n\r\nhelloEARLY AND LATE");
  await eventually(() => {
    accessLog.flush();
    return lines.length > 0;
  });
  expect(JSON.parse(lines[0]!)).toMatchObject({
    ...{ status: 101, bytesReceived: "early and late".length },
    bytesSent: "helloEARLY AND LATE".length,
  });
  const metrics = plane.metrics.render();
  expect(metrics).toMatch(/weft_http_body_bytes_total\{.*way="received".*\} 14\n/);
});
