import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { rawTalk, snapshotOf, TestPlane, type TestWorkload } from "./mesh.fixture.ts";

const plane = new TestPlane();
let web: TestWorkload;
let seen = 0;

const app = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  async fetch(request) {
    seen++;
    const url = new URL(request.url);
    if (url.pathname === "/slow") await Bun.sleep(Number(url.searchParams.get("ms")));
    if (url.pathname === "/reason")
      return new Response("", { headers: { "weft-reason": "denied" } });
    if (url.pathname === "/stream") {
      return new Response(
        (async function* () {
          for (let i = 0; i < 3; i++) {
            yield `part ${i}\n`;
            await Bun.sleep(5);
          }
        })(),
      );
    }
    if (url.pathname === "/big") return new Response(Buffer.alloc(5_000_000, "x"));
    return Response.json({
      method: request.method,
      path: url.pathname + url.search,
      headers: Object.fromEntries(request.headers),
      body: await request.text(),
    });
  },
});

interface Seen {
  readonly method: string;
  readonly path: string;
  readonly headers: Record<string, string>;
  readonly body: string;
}

function ask(path: string, init: RequestInit = {}, host = "cart"): Promise<Response> {
  return fetch(`${web.url}${path}`, { ...init, headers: { host, ...(init.headers ?? {}) } });
}

beforeAll(() => {
  plane.workload("cart", [{ servicePort: 80, host: "127.0.0.1", port: app.port ?? 0 }]);
  plane.workload("gone", [{ servicePort: 80, host: "127.0.0.1", port: 1 }]);
  web = plane.workload("web");
  web.snapshot.set(
    snapshotOf([
      { service: "cart", port: 80, endpoints: [plane.endpoint("cart")] },
      { service: "gone", port: 80, endpoints: [plane.endpoint("gone")] },
      { service: "empty", port: 80, endpoints: [] },
      { service: "dead", port: 80, endpoints: [{ ports: { "80": 1 } }] },
      { service: "liar", port: 80, endpoints: [plane.endpoint("cart", {})] },
      {
        service: "hurried",
        port: 80,
        policy: { requestTimeoutMs: 60 },
        endpoints: [{ ports: { "80": app.port ?? 0 } }],
      },
      {
        service: "narrow",
        port: 80,
        policy: { maxConnections: 1, maxPending: 1 },
        endpoints: [{ ports: { "80": app.port ?? 0 } }],
      },
      { service: "plain", port: 80, endpoints: [{ ports: { "80": app.port ?? 0 } }] },
    ]),
  );
});

afterAll(() => {
  plane.plane.stop();
  app.stop(true);
});

describe("two hops", () => {
  test("reach the application with ids added, and nothing hop-by-hop", async () => {
    const answer = await ask("/a?b=c", {
      headers: { connection: "keep-alive, x-mine", "x-mine": "1" },
    });
    expect(answer.status).toBe(200);
    const { path, headers } = (await answer.json()) as Seen;
    expect(path).toBe("/a?b=c");
    expect(headers["host"]).toBe("cart");
    expect(headers["x-request-id"]).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab]/);
    expect(headers["traceparent"]).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/);
    expect(headers["x-mine"]).toBeUndefined();
  });

  test("keep the caller's ids, with a span of their own", async () => {
    const trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    const given = `00-${trace}-00f067aa0ba902b7-01`;
    const answer = await ask("/", { headers: { "x-request-id": "mine", traceparent: given } });
    const { headers } = (await answer.json()) as Seen;
    expect(headers["x-request-id"]).toBe("mine");
    expect(headers["traceparent"]).toBe(given);
  });

  test("carry bodies with a length and in chunks, both ways", async () => {
    const body = "0123456789abcdef".repeat(100_000);
    const plain = (await (await ask("/", { method: "POST", body })).json()) as Seen;
    expect(plain.body === body).toBe(true);
    const stream = new Response(body).body ?? undefined;
    const chunked = (await (
      await ask("/", { method: "PUT", body: stream as ReadableStream })
    ).json()) as Seen;
    expect(chunked.body === body).toBe(true);
    expect(await (await ask("/stream")).text()).toBe("part 0\npart 1\npart 2\n");
    expect((await (await ask("/big")).arrayBuffer()).byteLength).toBe(5_000_000);
  });

  test("decompression bombs: are passed on as they came, both ways", async () => {
    const bomb = Bun.gzipSync(Buffer.alloc(50_000_000));
    const packed = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: async (request) =>
        new Response(await request.bytes(), { headers: { "content-encoding": "gzip" } }),
    });
    const other = plane.workload("other");
    const endpoints = [{ ports: { "80": packed.port ?? 0 } }];
    other.snapshot.set(snapshotOf([{ service: "packed", port: 80, endpoints }]));
    const answer = await fetch(other.url, {
      ...{ method: "POST", body: bomb, decompress: false },
      headers: { host: "packed", "content-encoding": "gzip" },
    });
    expect(Buffer.compare(await answer.bytes(), bomb)).toBe(0);
    expect(answer.headers.get("content-encoding")).toBe("gzip");
    packed.stop(true);
  });

  test("answer HEAD without a body and go on", async () => {
    const text = await rawTalk(
      web.outbound,
      "HEAD /big HTTP/1.1\r\nHost: cart\r\n\r\nGET /x HTTP/1.1\r\nHost: cart\r\n\r\n",
    );
    const [first, second] = text.split("\r\n\r\nHTTP/1.1 200");
    expect(first).toContain("ontent-");
    expect(second).toContain('"path":"/x"');
  });

  test("serve pipelined requests in order", async () => {
    const one = (i: number) => `GET /n${i} HTTP/1.1\r\nHost: cart\r\n\r\n`;
    const text = await rawTalk(web.outbound, [0, 1, 2, 3, 4].map(one).join(""));
    const paths = text.match(/"path":"\/n\d"/g) ?? [];
    expect([...paths]).toEqual([0, 1, 2, 3, 4].map((i) => `"path":"/n${i}"`));
  });

  test("serve HTTP/1.0: no chunks, closed at the end", async () => {
    const text = await rawTalk(web.outbound, "GET /stream HTTP/1.0\r\nHost: cart\r\n\r\n", 2000);
    expect(text).not.toMatch(/transfer-encoding/i);
    expect(text).toMatch(/connection: close/i);
    expect(text).toEndWith("part 0\npart 1\npart 2\n");
  });

  test("strip the reason an application claims", async () => {
    expect((await ask("/reason")).headers.get("weft-reason")).toBeNull();
  });

  test("pass 100-continue on", async () => {
    const curl = Bun.spawn(
      ["curl", "-s", "-H", "Expect: 100-continue", "-H", "Host: cart", "-d", "hello", web.url],
      { stdout: "pipe" },
    );
    expect(((await new Response(curl.stdout).json()) as Seen).body).toBe("hello");
  });

  test("take an absolute-form target, and send origin form on", async () => {
    const curl = Bun.spawn(["curl", "-s", "-x", web.url, "http://cart.default.mesh/x?y"], {
      stdout: "pipe",
    });
    expect(((await new Response(curl.stdout).json()) as Seen).path).toBe("/x?y");
  });

  test("tunnel by CONNECT", async () => {
    const curl = Bun.spawn(["curl", "-s", "-p", "-x", web.url, "http://cart:80/tunnelled"], {
      stdout: "pipe",
    });
    expect(((await new Response(curl.stdout).json()) as Seen).path).toBe("/tunnelled");
  });
});

describe("answers of our own", () => {
  test.each([
    ["nobody", 404, "no_route"],
    ["example.com.au", 404, "no_route"],
    ["cart:81", 404, "no_route"],
    ["empty", 503, "no_endpoint"],
    ["dead", 503, "connect_failed"],
    ["gone", 503, "app_unreachable"],
    ["liar", 503, "connect_failed"],
    ["car t", 400, "bad_request"],
  ])("%s is %d %s", async (host, status, reason) => {
    const text = await rawTalk(web.outbound, `GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
    expect(text).toStartWith(`HTTP/1.1 ${status} `);
    expect(text).toContain(`\r\n\r\n${reason}: `);
    expect(text).not.toContain("weft-reason");
  });

  test("a malformed request is answered 400, and what follows it is not read", async () => {
    const before = seen;
    const text = await rawTalk(
      web.outbound,
      "GET / HTTP/1.1\r\nHost: cart\r\nContent-Length: +5\r\n\r\nhelloGET / HTTP/1.1\r\nHost: cart\r\n\r\n",
    );
    expect(text.match(/HTTP\/1.1 \d+/g)).toEqual(["HTTP/1.1 400"]);
    expect(seen).toBe(before);
  });

  test("the connection survives an answer of ours", async () => {
    const text = await rawTalk(
      web.outbound,
      "POST / HTTP/1.1\r\nHost: nobody\r\nContent-Length: 5\r\n\r\nhello" +
        "GET /after HTTP/1.1\r\nHost: cart\r\n\r\n",
    );
    expect(text.match(/HTTP\/1.1 \d+/g)).toEqual(["HTTP/1.1 404", "HTTP/1.1 200"]);
  });

  test("a request timeout is 504", async () => {
    const answer = await ask("/slow?ms=1000", {}, "hurried");
    expect(answer.status).toBe(504);
    expect(await answer.text()).toStartWith("timeout: ");
    expect((await ask("/", {}, "hurried")).status).toBe(200);
  });

  test("beyond the limits a request waits, then overflows", async () => {
    const answers = await Promise.all([0, 1, 2].map(() => ask("/slow?ms=50", {}, "narrow")));
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 200, 503]);
    expect((await ask("/", {}, "narrow")).status).toBe(200);
  });
});

test("an unknown service is asked for once, and served once its documents arrive", async () => {
  const other = plane.workload("other");
  plane.onAccess = (service) => {
    setTimeout(
      () =>
        other.snapshot.set(
          snapshotOf([{ service, port: 80, endpoints: [{ ports: { "80": app.port ?? 0 } }] }]),
        ),
      30,
    );
    return true;
  };
  const asked = plane.asked.length;
  const answers = await Promise.all(
    [0, 1, 2].map(() => fetch(other.url, { headers: { host: "fresh" } })),
  );
  expect(answers.map(({ status }) => status)).toEqual([200, 200, 200]);
  expect(plane.asked.slice(asked)).toEqual(["default/fresh"]);
});

test("a caller that goes away cancels the request", async () => {
  const aborted = Promise.withResolvers<void>();
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch(request) {
      request.signal.addEventListener("abort", () => aborted.resolve());
      return new Promise(() => {});
    },
  });
  plane.workload("stuck", [{ servicePort: 80, host: "127.0.0.1", port: server.port ?? 0 }]);
  const caller = plane.workload("caller");
  caller.snapshot.set(
    snapshotOf([{ service: "stuck", port: 80, endpoints: [plane.endpoint("stuck")] }]),
  );
  const request = fetch(caller.url, {
    headers: { host: "stuck" },
    signal: AbortSignal.timeout(100),
  });
  await expect(request).rejects.toThrow();
  await aborted.promise;
  server.stop(true);
});

test("metrics are clean for promtool and name both ends", async () => {
  await ask("/");
  const text = plane.metrics.render();
  expect(text).toContain(
    'weft_requests_total{direction="inbound",workload="default/cart",source="default/web",' +
      'peer="default/cart",port="80",subset="",tls="mtls",code="200",reason=""}',
  );
  const checked = Bun.spawn(["promtool", "check", "metrics"], {
    stdin: new Blob([text]),
    stderr: "pipe",
    stdout: "pipe",
  });
  expect(await new Response(checked.stderr).text()).toBe("");
  expect(await checked.exited).toBe(0);
});
