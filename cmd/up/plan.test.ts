import { expect, test } from "bun:test";
import type { ProcessResource } from "../../src/config/resource.ts";
import { planProcesses } from "./plan.ts";

function process(name: string, spec: Partial<ProcessResource["spec"]>): ProcessResource {
  return {
    apiVersion: "weft.dev/v1",
    kind: "Process",
    metadata: { name, namespace: "default", labels: {} },
    spec: { command: ["run"], service: name, ...spec },
  };
}

function plan(...processes: readonly ProcessResource[]) {
  let port = 40_000;
  return planProcesses({ processes, portBase: 17_000, data: "/d", freePort: () => port++ });
}

test("every program gets a sidecar of its own", () => {
  const { proxies, programs } = plan(
    process("cart", { app: ["80=8080"], upstreams: ["db:9191"], labels: { version: "v1" } }),
    process("jobs", {}),
  );
  expect(proxies.map((proxy) => [proxy.name, proxy.mode, proxy.portBase])).toEqual([
    ["cart-proxy", "sidecar", 17_300],
    ["jobs-proxy", "sidecar", 17_400],
  ]);
  expect(proxies[0]!.workloads).toEqual([
    {
      service: "cart",
      namespace: "default",
      serviceAccount: "cart",
      app: ["80=127.0.0.1:8080/http"],
      upstream: ["db:9191"],
      labels: { version: "v1" },
    },
  ]);
  expect(programs[0]!.env).toEqual({
    PORT: "8080",
    WEFT_PROXY: "http://127.0.0.1:17301",
    WEFT_UPSTREAM_DB: "127.0.0.1:9191",
  });
  expect(programs[1]!.env).toEqual({ WEFT_PROXY: "http://127.0.0.1:17401" });
});

test("processes of one node share a proxy, each with its own way into the mesh", () => {
  const { proxies, programs } = plan(
    process("cart", { app: ["8080"], node: "shelf" }),
    process("web", { app: ["8081"] }),
    process("db", { app: ["5432/tcp"], node: "shelf" }),
  );
  expect(proxies.map((proxy) => proxy.name)).toEqual(["node-shelf", "web-proxy"]);
  expect(proxies[0]!.workloads.map((workload) => workload.out)).toEqual([
    "127.0.17.1:17301",
    "127.0.17.2:17301",
  ]);
  expect(programs.map((program) => program.mesh)).toEqual([
    "http://127.0.17.1:17301",
    "http://127.0.17.2:17301",
    "http://127.0.0.1:17401",
  ]);
});

test("a further replica gets ports of its own and is told them", () => {
  const { programs, proxies } = plan(
    process("cart", {
      app: ["80=8080"],
      upstreams: ["db:9191"],
      replicas: 2,
      // biome-ignore lint/suspicious/noTemplateCurlyInString: the file's own notation
      command: ["cart", "--port=${PORT}", "--db=${WEFT_UPSTREAM_DB}", "$HOME"],
      env: { PORT: "8080" },
    }),
  );
  expect(programs.map((program) => program.name)).toEqual(["cart", "cart.2"]);
  expect(programs[0]!.command).toEqual(["cart", "--port=8080", "--db=127.0.0.1:9191", "$HOME"]);
  expect(programs[1]!.command[1]).toBe("--port=40000");
  expect(programs[1]!.command[2]).toBe("--db=127.0.0.1:40001");
  expect(proxies[1]!.workloads[0]!.app).toEqual(["80=127.0.0.1:40000/http"]);
});

test("what one mesh port could not tell apart is refused", () => {
  expect(() => plan(process("a", { node: "n", replicas: 2 }))).toThrow("replicas");
  expect(() =>
    plan(process("a", { node: "n" }), process("b", { node: "n", service: "a" })),
  ).toThrow("already has");
});
