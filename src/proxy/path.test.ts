import { afterAll, describe, expect, test } from "bun:test";
import type { MeshDocument, RouteTable } from "../snapshot/document.ts";
import { rawTalk, snapshotOf } from "./mesh.fixture.ts";
import { newPlane, rawServer, stopAll } from "./servers.fixture.ts";

afterAll(stopAll);

const plane = newPlane();
const web = plane.workload("web");
/** Answers with the request line that reached it. */
const app = rawServer({
  data(socket, text) {
    const line = text.slice(0, text.indexOf("\r\n"));
    socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${line.length}\r\n\r\n${line}`);
  },
});

const to = (service: string) => ({
  ...{ namespace: "default", service, port: 80, weight: 1 },
});
const ROUTES: RouteTable = {
  matches: [
    {
      ...{ hostnames: [], headers: [], query: [], rule: 0 },
      path: { type: "prefix", value: "/%61dmin" },
    },
    { ...{ hostnames: [], headers: [], query: [], rule: 1 }, path: { type: "prefix", value: "/" } },
  ],
  rules: [
    { name: "default/r#0", backends: [to("admin")] },
    { name: "default/r#1", backends: [to("app")] },
  ],
};

function use(mesh: Partial<MeshDocument>): void {
  const at = (service: string) => ({
    ...{ service, port: 80 },
    endpoints: [{ ports: { "80": app.port } }],
  });
  web.snapshot.set(
    snapshotOf(
      [
        { ...at("app"), routes: ROUTES },
        { ...at("admin"), endpoints: [] },
      ],
      mesh,
    ),
  );
}

async function ask(target: string): Promise<string> {
  const request = `GET ${target} HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n`;
  return rawTalk(web.outbound, request, 200);
}

function counted(outcome: string): number {
  const line = new RegExp(`weft_path_normalizations_total\\{.*outcome="${outcome}"\\} (\\d+)`);
  return Number(line.exec(plane.metrics.render())?.[1] ?? 0);
}

describe("by default", () => {
  test("the application reads what routes were matched against", async () => {
    use({});
    expect(await ask("/a//b/../c%2fd%41?x=//%zz")).toEndWith("GET /a/c/dA?x=//%zz HTTP/1.1");
    expect(await ask("http://app/a/%2e%2e/b")).toEndWith("GET /b HTTP/1.1");
    expect(counted("changed")).toBe(2);
  });

  test.each([
    ["/admin"],
    ["/%61dmin/x"],
    ["//admin"],
    ["/x/../admin"],
    ["/x/..%2fadmin"],
    ["/x\\..\\admin"],
  ])("%s cannot pass by the rule for /admin", async (target) => {
    use({});
    expect(await ask(target)).toContain("no_endpoint: ");
  });

  test.each([["/a%00"], ["/100%"], ["/%g0"], ["/x/..;/admin"], ["/x/.%2e%3Ba=b/admin"]])(
    "%s is refused",
    async (target) => {
      use({});
      const answer = await ask(target);
      expect(answer).toStartWith("HTTP/1.1 400 ");
      expect(answer).toContain("bad_request: ");
    },
  );
});

test("other levels do what they say", async () => {
  use({ pathNormalization: "NONE" });
  expect(await ask("/a//b/../c%2fd")).toEndWith("GET /a//b/../c%2fd HTTP/1.1");
  use({ pathNormalization: "BASE" });
  expect(await ask("/a//b/../c%2fd")).toEndWith("GET /a//c%2Fd HTTP/1.1");
  use({ pathNormalization: "MERGE_SLASHES" });
  expect(await ask("/a//b/../c%2fd")).toEndWith("GET /a/c%2Fd HTTP/1.1");
});

test("reporting changes nothing and counts", async () => {
  use({ pathNormalization: "REPORT_ONLY" });
  expect(await ask("/a//b/100%")).toEndWith("GET /a//b/100% HTTP/1.1");
  expect(await ask("/a/b")).toEndWith("GET /a/b HTTP/1.1");
  expect(counted("reported")).toBe(1);
});

test("a proxy that sends another spelling is refused at the mesh port", async () => {
  const cart = plane.workload("cart", [{ servicePort: 80, host: "127.0.0.1", port: app.port }]);
  const endpoints = [plane.endpoint("cart")];
  const service = { service: "cart", port: 80, endpoints };
  // The caller believes that nothing is to be normalised, the service knows better.
  web.snapshot.set(snapshotOf([service], { pathNormalization: "NONE" }));
  cart.snapshot.set(snapshotOf([], {}, "cart"));
  const request = (target: string) =>
    rawTalk(web.outbound, `GET ${target} HTTP/1.1\r\nHost: cart\r\nConnection: close\r\n\r\n`, 200);
  expect(await request("/x/../admin")).toStartWith("HTTP/1.1 400 ");
  expect(await request("/admin")).toEndWith("GET /admin HTTP/1.1");
});
