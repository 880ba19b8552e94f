/** The first story: two services that know nothing of each other's addresses talk to each other. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ask, metrics, run, type Sidecar, sumMetric, TestMesh, until } from "../harness/mesh.ts";
import { type App, echo } from "../harness/servers.ts";

let mesh: TestMesh;
let app: App;
let web: Sidecar;
let cart: Sidecar;

beforeAll(async () => {
  mesh = await TestMesh.start();
  app = echo("cart");
  cart = await mesh.sidecar({ service: "cart", app: [`8080=${app.port}`] });
  web = await mesh.sidecar({ service: "web" });
}, 60_000);

afterAll(async () => {
  app?.stop();
  await mesh?.stop();
});

interface Seen {
  readonly name: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

async function seen(response: Response): Promise<Seen> {
  expect(response.status).toBe(200);
  return (await response.json()) as Seen;
}

describe("a call between two services", () => {
  test("arrives by name alone", async () => {
    const answer = await seen(await ask(web.outbound, "cart", "/a?b=c"));
    expect(answer.name).toBe("cart");
  });

  for (const name of [
    "cart:8080",
    "cart.default",
    "cart.default.mesh",
    "cart.default.svc.cluster.local",
    "CART.default.mesh.",
  ]) {
    test(`arrives as ${name}`, async () => {
      expect((await seen(await ask(web.outbound, name))).name).toBe("cart");
    });
  }

  test("arrives through HTTP_PROXY (absolute-form), with curl", async () => {
    const result = await run(["curl", "-s", "-x", web.outbound, "http://cart.default.mesh/x"]);
    expect(JSON.parse(result.stdout)).toMatchObject({ name: "cart", path: "/x" });
  });

  test("arrives through a CONNECT tunnel, with curl", async () => {
    const result = await run(["curl", "-s", "-p", "-x", web.outbound, "http://cart:8080/tunnel"]);
    expect(JSON.parse(result.stdout)).toMatchObject({ name: "cart", path: "/tunnel" });
  });

  test("carries a request id and a trace context, kept when the caller has them", async () => {
    const made = await seen(await ask(web.outbound, "cart"));
    expect(made.headers["x-request-id"]).toMatch(/^[0-9a-f-]{36}$/);
    expect(made.headers["traceparent"]).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$/);
    const trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    const kept = await seen(
      await ask(web.outbound, "cart", "/", {
        headers: { "x-request-id": "mine", traceparent: `00-${trace}-00f067aa0ba902b7-01` },
      }),
    );
    expect(kept.headers["x-request-id"]).toBe("mine");
    expect(kept.headers["traceparent"]).toContain(trace);
  });

  test("carries a body of 5 MB both ways, with and without a length", async () => {
    const body = "0123456789abcdef".repeat(327_680);
    const plain = await seen(await ask(web.outbound, "cart", "/", { method: "POST", body }));
    expect(plain.body === body).toBe(true);
    const stream = new Blob([body]).stream();
    const chunked = await seen(
      await ask(web.outbound, "cart", "/", { method: "POST", body: stream }),
    );
    expect(chunked.body === body).toBe(true);
  });

  test("keeps the application's own status, and adds no reason to it", async () => {
    const response = await ask(web.outbound, "cart", "/status?code=503");
    expect(response.status).toBe(503);
    expect(response.headers.get("weft-reason")).toBeNull();
  });

  test("is answered 404 when nobody is called that", async () => {
    const response = await ask(web.outbound, "nobody");
    expect(response.status).toBe(404);
    expect(await response.text()).toContain("no_route");
  });
});

describe("the mesh port", () => {
  const connect = (args: readonly string[]) =>
    run([...["openssl", "s_client", "-connect", `127.0.0.1:${cart.meshPort}`], ...args], {
      stdin: "GET / HTTP/1.1\r\nHost: cart\r\n\r\n",
    });

  test("refuses a caller without a certificate", async () => {
    const result = await connect(
      "-servername p8080.cart.default.weft.local -alpn http/1.1 -ign_eof".split(" "),
    );
    expect(result.stdout).not.toContain("HTTP/1.1 200");
    expect(result.stderr + result.stdout).toMatch(/alert|certificate required/i);
  });

  for (const port of [22, 17010, 17020, 17222, 17001]) {
    test(`answers the name of port ${port}, which is not registered, with an alert`, async () => {
      const result = await connect([
        ...["-servername", `p${port}.cart.default.weft.local`, "-alpn", "http/1.1"],
      ]);
      expect(result.stderr + result.stdout).toMatch(/alert/i);
      expect(result.stdout).not.toContain("BEGIN CERTIFICATE");
    });
  }

  test("refuses plaintext", async () => {
    const result = await run(["curl", "-s", "-m", "3", `http://127.0.0.1:${cart.meshPort}/`]);
    expect(result.code).not.toBe(0);
    expect(result.stdout).toBe("");
  });

  test("counts what it refused", async () => {
    const text = await metrics(cart);
    expect(sumMetric(text, "weft_handshakes_refused_total")).toBeGreaterThan(0);
  });
});

describe("golden signals", () => {
  test("are clean for promtool and know who called whom over mutual TLS", async () => {
    await ask(web.outbound, "cart");
    for (const sidecar of [web, cart]) {
      const text = await metrics(sidecar);
      const checked = await run(["promtool", "check", "metrics"], { stdin: text });
      expect(checked.stderr).toBe("");
      expect(checked.code).toBe(0);
    }
    expect(
      sumMetric(await metrics(cart), "weft_requests_total", {
        direction: "inbound",
        tls: "mtls",
      }),
    ).toBeGreaterThan(0);
  });

  test("are all documented, by their exact names", async () => {
    const page = readFileSync(join(import.meta.dir, "../../docs/operations.md"), "utf8");
    const names = [...(await metrics(cart)).matchAll(/^# HELP (\S+)/gm)].map(([, name]) => name);
    expect(names.length).toBeGreaterThan(10);
    expect(names.filter((name) => !page.includes(`\`${name}\``))).toEqual([]);
  });

  test("health and readiness answer, readiness by name", async () => {
    expect((await fetch(`${cart.admin}/healthz`)).status).toBe(200);
    expect((await fetch(`${cart.admin}/readyz`)).status).toBe(200);
  });
});

test("an access log tells each request in one line of JSON, when asked to", async () => {
  const logging = await mesh.sidecar({ service: "logging", args: ["--access-log=on"] });
  await ask(logging.outbound, "cart", "/seen?a=b", {
    headers: { "x-request-id": "one-of-a-kind" },
  });
  const line = await until("the line", () =>
    logging
      .output()
      .split("\n")
      .find((text) => text.includes("one-of-a-kind")),
  );
  expect(JSON.parse(line)).toMatchObject({ method: "GET", status: 200, reason: "" });
  expect(web.output()).toBe("");
});

test("an application that dies is answered 503 within the mesh and leaves after its check", async () => {
  const dying = echo("dying");
  const sidecar = await mesh.sidecar({ service: "dying", app: [`8080=${dying.port}`] });
  expect((await ask(web.outbound, "dying")).status).toBe(200);
  dying.stop();
  const response = await ask(web.outbound, "dying");
  expect(response.status).toBe(503);
  expect(await response.text()).toContain("app_unreachable");
  sidecar.kill("SIGTERM");
  expect(await sidecar.exited).toBe(0);
}, 60_000);
