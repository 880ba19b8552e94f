import { afterEach, describe, expect, test } from "bun:test";
import { connect } from "node:net";
import { Hono } from "hono";
import { streamSSE } from "hono/streaming";
import { REFUSED } from "../http/h1/request.cases.ts";
import { pendingBytes } from "../net/connection.ts";
import { type Listener, listen } from "../net/listen.ts";
import { type ServeEnv, type ServeOptions, serveApp } from "./serve.ts";

/** The one row whose first request is in order. */
const CLOSES = "something after Connection: close";

const open: Listener[] = [];

afterEach(() => {
  for (const listener of open.splice(0)) listener.closeAll();
});

function serve(app: Hono<{ Bindings: ServeEnv }>, options: ServeOptions = {}): number {
  const listener = listen({
    host: "127.0.0.1",
    port: 0,
    accept: (c) => serveApp(c, app, options),
  });
  open.push(listener);
  return listener.port;
}

async function curl(...args: string[]): Promise<string> {
  const child = Bun.spawn(["curl", "-sS", "--max-time", "10", ...args], { stderr: "pipe" });
  const out = await new Response(child.stdout).text();
  return (await child.exited) === 0 ? out : out + (await new Response(child.stderr).text());
}

/** Sends raw bytes and returns everything up to the peer's close. */
async function raw(port: number, ...pieces: string[]): Promise<string> {
  let text = "";
  const { promise, resolve } = Promise.withResolvers<void>();
  const socket = await Bun.connect({
    hostname: "127.0.0.1",
    port,
    socket: {
      data: (_socket, chunk) => {
        text += chunk.toString("latin1");
      },
      close: () => resolve(),
    },
  });
  for (const piece of pieces) {
    socket.write(piece);
    await Bun.sleep(5);
  }
  await promise;
  return text;
}

function echo(): Hono<{ Bindings: ServeEnv }> {
  const app = new Hono<{ Bindings: ServeEnv }>();
  app.onError((_error, c) => c.text("failed", 500));
  app.get("/hello", (c) => c.text(`hello ${c.env.remoteAddress}`));
  app.get("/fields", (c) => c.json(c.req.header()));
  app.post("/echo", async (c) => c.body(await c.req.arrayBuffer()));
  app.post("/ignore", (c) => c.text("not read"));
  app.get("/none", (c) => c.body(null, 204));
  app.get("/throws", () => {
    throw new Error("secret detail");
  });
  return app;
}

describe("served to curl", () => {
  test("an answer has its length and the connection is kept", async () => {
    const url = `http://127.0.0.1:${serve(echo())}/hello`;
    const out = await curl("-i", "-w", "%{num_connects}\n", url, url);
    expect(out.match(/HTTP\/1.1 200 OK/g)).toHaveLength(2);
    expect(out).toContain("content-length: 15\r\n");
    expect(out).toContain("hello 127.0.0.11\n");
    expect(out.endsWith("hello 127.0.0.10\n")).toBe(true);
  });

  test("HEAD has no body, 204 neither", async () => {
    const port = serve(echo());
    expect(await curl("-I", `http://127.0.0.1:${port}/hello`)).toStartWith("HTTP/1.1 200 OK\r\n");
    const out = await curl("-i", `http://127.0.0.1:${port}/none`);
    expect(out).toStartWith("HTTP/1.1 204 No Content\r\n");
    expect(out).not.toContain("content-length");
  });

  test("bodies of every framing arrive whole", async () => {
    const url = `http://127.0.0.1:${serve(echo())}/echo`;
    const text = "0123456789abcdef".repeat(60_000);
    const file = `${await Bun.$`mktemp`.text()}`.trim();
    await Bun.write(file, text);
    try {
      const data = ["--data-binary", `@${file}`];
      expect((await curl(...data, url)) === text).toBe(true);
      expect((await curl(...data, "-H", "Transfer-Encoding: chunked", url)) === text).toBe(true);
      expect((await curl(...data, "-H", "Expect: 100-continue", url)) === text).toBe(true);
      expect(await curl("--data-binary", "small", url)).toBe("small");
      expect(await curl("-0", "--data-binary", "old", url)).toBe("old");
    } finally {
      await Bun.$`rm -f ${file}`;
    }
  });

  test("what the application throws is a 500 without its detail, and the server lives", async () => {
    const failures: unknown[] = [];
    const app = echo();
    const failing = { fetch: () => Promise.reject(new Error("secret detail")) };
    const listener = listen({
      host: "127.0.0.1",
      port: 0,
      accept: (c) => serveApp(c, failing, { failed: (cause) => failures.push(cause) }),
    });
    open.push(listener);
    const out = await curl("-i", `http://127.0.0.1:${listener.port}/`);
    expect(out).toStartWith("HTTP/1.1 500 Internal Server Error\r\n");
    expect(out).toContain("content-type: application/problem+json\r\n");
    expect(out).not.toContain("secret");
    expect(failures).toHaveLength(1);
    const port = serve(app);
    expect(await curl("-i", `http://127.0.0.1:${port}/throws`)).toContain("500 Internal");
    expect(await curl(`http://127.0.0.1:${port}/hello`)).toBe("hello 127.0.0.1");
  });

  test("HTTP/1.0 gets an answer that ends with the connection", async () => {
    const out = await curl("-0", "-i", `http://127.0.0.1:${serve(echo())}/hello`);
    expect(out).toContain("connection: close\r\n");
    expect(out).toEndWith("hello 127.0.0.1");
  });
});

describe("bodies over the limit", () => {
  const limits = { bodyBytesMax: 1000 };

  test("a declared length is refused before anything is read", async () => {
    const port = serve(echo(), { limits });
    const out = await raw(port, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n");
    expect(out).toStartWith("HTTP/1.1 413 Content Too Large\r\n");
    expect(out).toContain('"code":"body_too_large"');
    expect(out).toContain("connection: close\r\n");
  });

  test("Expect: 100-continue is not answered 100 then", async () => {
    const port = serve(echo(), { limits });
    const out = await raw(
      port,
      "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n",
    );
    expect(out).toStartWith("HTTP/1.1 413 ");
  });

  test("chunks are refused once they pass it", async () => {
    const port = serve(echo(), { limits });
    const chunk = `1f4\r\n${"x".repeat(500)}\r\n`;
    const head = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    const out = await raw(port, head, chunk, chunk, "1\r\ny\r\n");
    expect(out).toStartWith("HTTP/1.1 413 ");
    expect(out.match(/HTTP/g)).toHaveLength(1);
  });
});

describe("raw clients", () => {
  test("pipelined requests are answered in order", async () => {
    const port = serve(echo());
    const out = await raw(
      port,
      "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\noneGET /hello HTTP/1.1\r\n" +
        "Host: a\r\n\r\nGET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    );
    const statuses = [...out.matchAll(/HTTP\/1.1 (\d+)/g)].map((match) => match[1]);
    expect(statuses).toEqual(["200", "200", "204"]);
    expect(out.indexOf("one")).toBeLessThan(out.indexOf("hello"));
  });

  test("malformed bytes are answered 400 and closed", async () => {
    const port = serve(echo());
    const out = await raw(port, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\nGET / HTTP/1.1\r\n");
    expect(out).toStartWith("HTTP/1.1 400 Bad Request\r\n");
    expect(out.match(/HTTP\/1.1 \d/g)).toHaveLength(1);
    expect(out).toMatch(/"code":"bad_request","fix":"[^"]+"\}/);
    expect(await raw(port, "GET / HTTP/2.0\r\nHost: a\r\n\r\n")).toStartWith("HTTP/1.1 505 ");
    const flood = `GET / HTTP/1.1\r\nHost: a\r\nX: ${"x".repeat(70_000)}\r\n\r\n`;
    expect(await raw(port, flood)).toStartWith("HTTP/1.1 431 ");
  });

  test("every malformed request of the codec's table is refused before the application", async () => {
    let asked = 0;
    const app = new Hono<{ Bindings: ServeEnv }>();
    app.onError((_error, c) => c.text("failed", 500));
    app.all("*", async (c) => {
      await c.req.arrayBuffer();
      asked++;
      return c.text("");
    });
    const port = serve(app);
    const answers = await Promise.all(REFUSED.map(([, , bytes]) => raw(port, bytes)));
    for (const [i, [name, status]] of REFUSED.entries()) {
      const last = answers[i]?.match(/^HTTP\/1\.1 \d+/gm)?.at(-1);
      expect(`${name}: ${last}`).toBe(`${name}: HTTP/1.1 ${name === CLOSES ? 200 : status}`);
    }
    expect(asked).toBe(1);
  });

  test("a client that only shuts its sending side gets every answer", async () => {
    const port = serve(echo());
    const get = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n";
    let text = "";
    const { promise, resolve } = Promise.withResolvers<void>();
    const socket = await Bun.connect({
      hostname: "127.0.0.1",
      port,
      allowHalfOpen: true,
      socket: {
        data: (_socket, chunk) => {
          text += chunk.toString("latin1");
        },
        close: () => resolve(),
      },
    });
    socket.write(get + get + get);
    socket.shutdown();
    await promise;
    expect(text.match(/hello 127/g)).toHaveLength(3);
  });

  test("a length the application got wrong is never sent as if it were right", async () => {
    const app = new Hono<{ Bindings: ServeEnv }>();
    app.get("/long", () => new Response("12345", { headers: { "content-length": "3" } }));
    app.get("/short", () => new Response("12345", { headers: { "content-length": "9" } }));
    app.get("/right", () => new Response("12345", { headers: { "content-length": "5" } }));
    const port = serve(app);
    expect(await curl(`http://127.0.0.1:${port}/long`)).toContain("curl: (");
    expect(await curl(`http://127.0.0.1:${port}/short`)).toContain("curl: (");
    expect(await curl(`http://127.0.0.1:${port}/right`)).toBe("12345");
  });

  test("cookies stay apart, Date comes from the clock given", async () => {
    const app = new Hono<{ Bindings: ServeEnv }>();
    app.get("/", (c) => {
      c.header("set-cookie", "a=1", { append: true });
      c.header("set-cookie", "b=2", { append: true });
      c.header("weft-reason", "denied");
      return c.text("");
    });
    const out = await curl("-i", `http://127.0.0.1:${serve(app, { now: () => 0 })}/`);
    expect(out).toContain("set-cookie: a=1\r\nset-cookie: b=2\r\n");
    expect(out).toContain("date: Thu, 01 Jan 1970 00:00:00 GMT\r\n");
    expect(out).not.toContain("weft-reason");
  });

  test("a body the application did not read ends the connection, not the next request", async () => {
    const port = serve(echo());
    const out = await raw(
      port,
      "POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n",
      "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    expect(out.match(/HTTP\/1.1 \d/g)).toHaveLength(1);
    expect(out).toContain("connection: close\r\n");
  });

  test("methods that no Request may have are 501", async () => {
    const port = serve(echo());
    const out = await raw(port, "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n");
    expect(out).toStartWith("HTTP/1.1 501 ");
  });

  test("hop-by-hop fields do not reach the application, __proto__ is a field", async () => {
    const port = serve(echo());
    const out = await raw(
      port,
      "GET /fields HTTP/1.1\r\nHost: a\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n" +
        "weft-reason: denied\r\n__proto__: 2\r\nX-Kept: 3\r\n\r\n",
    );
    const fields = JSON.parse(out.slice(out.indexOf("{")));
    expect(Object.keys(fields).sort()).toEqual(
      ["host", "x-kept"].concat(Object.hasOwn(fields, "__proto__") ? ["__proto__"] : []).sort(),
    );
  });

  test("a slow head is given up, an unused connection is closed", async () => {
    const refused: string[] = [];
    const limits = { headTimeoutMs: 50, idleTimeoutMs: 100 };
    const port = serve(echo(), { limits, refused: (code) => void refused.push(code) });
    expect(await raw(port, "GET / HT")).toStartWith("HTTP/1.1 408 ");
    expect(await raw(port)).toBe("");
    const kept = await raw(port, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    expect(kept).toEndWith("hello 127.0.0.1");
    expect(refused).toEqual(["request_timeout", "idle", "idle"]);
  });

  test("slowloris: a body that drips is given up, one that pauses and one that trickles are not", async () => {
    const refused: string[] = [];
    const limits = { tickMs: 5 };
    const port = serve(echo(), { limits, refused: (code) => void refused.push(code) });
    const head = (bytes: number) =>
      `POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: ${bytes}\r\n\r\n`;
    const drip = Array.from({ length: 60 }, () => "x");
    expect(await raw(port, head(100), ...drip)).toStartWith("HTTP/1.1 408 ");
    expect(refused).toEqual(["request_timeout"]);
    const trickle = Array.from({ length: 60 }, () => "x".repeat(1024));
    expect(await raw(port, head(60 * 1024), ...trickle)).toStartWith("HTTP/1.1 200 ");
    const pause = Array.from({ length: 10 }, () => "");
    expect(await raw(port, head(2), "x", ...pause, "x")).toStartWith("HTTP/1.1 200 ");
  });

  test("whatever is refused is told by its code", async () => {
    const refused: string[] = [];
    const port = serve(echo(), { refused: (code) => void refused.push(code) });
    const post = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n";
    const fields = Array.from({ length: 101 }, (_, i) => `x${i}: y\r\n`).join("");
    await raw(port, "GET / HTTP/1.1\r\n\r\n");
    await raw(port, `GET / HTTP/1.1\r\nHost: a\r\n${fields}\r\n`);
    await raw(port, post);
    await raw(port, "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n");
    const codes = ["bad_request", "headers_too_large", "body_too_large", "method_not_supported"];
    expect(refused).toEqual(codes);
  });

  test("held bytes: while there are too many, half a head is refused and a whole one served", async () => {
    let flooded = false;
    const port = serve(echo(), { flooded: () => flooded });
    const before = pendingBytes();
    const drip = Array.from({ length: 20 }, () => "x");
    const half = raw(port, "GET /hello HTTP/1.1\r\nHost: a\r\nX: ", ...drip);
    await Bun.sleep(10);
    expect(pendingBytes() - before).toBeGreaterThan(30);
    flooded = true;
    expect(await half).toStartWith("HTTP/1.1 503 ");
    expect(pendingBytes()).toBe(before);
    const whole = "GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    expect(await raw(port, whole)).toStartWith("HTTP/1.1 200 ");
  });

  test("slow read: a client that takes nothing is given up", async () => {
    const refused: string[] = [];
    const app = echo();
    app.get("/big", (c) => c.body(Buffer.alloc(64 * 1024 * 1024)));
    const limits = { idleTimeoutMs: 100 };
    const port = serve(app, { limits, refused: (code) => void refused.push(code) });
    const socket = connect(port, "127.0.0.1").on("error", () => {});
    socket.write("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    socket.once("data", () => socket.pause());
    const end = performance.now() + 3000;
    while (refused.length === 0 && performance.now() < end) await Bun.sleep(10);
    expect(refused).toEqual(["unread_answer"]);
    socket.destroy();
  });
});

describe("streams", () => {
  test("server-sent events arrive as they are sent, and leaving aborts the request", async () => {
    const app = new Hono<{ Bindings: ServeEnv }>();
    const aborted = Promise.withResolvers<void>();
    app.get("/watch", (c) => {
      c.req.raw.signal.addEventListener("abort", () => aborted.resolve());
      return streamSSE(c, async (stream) => {
        for (let i = 0; !stream.aborted; i++) {
          await stream.writeSSE({ data: String(i) });
          await stream.sleep(5);
        }
      });
    });
    const port = serve(app);
    const child = Bun.spawn(["curl", "-sSN", `http://127.0.0.1:${port}/watch`]);
    let text = "";
    for await (const chunk of child.stdout) {
      text += Buffer.from(chunk).toString();
      if (text.includes("data: 3")) break;
    }
    child.kill();
    await aborted.promise;
    expect(text).toStartWith("data: 0\n\ndata: 1\n\n");
  });

  test("a client that does not read stops the producer", async () => {
    let produced = 0;
    const app = new Hono<{ Bindings: ServeEnv }>();
    app.get("/flood", () => {
      const stream = new ReadableStream<Uint8Array>(
        {
          pull(controller) {
            produced += 65_536;
            controller.enqueue(new Uint8Array(65_536));
          },
        },
        { highWaterMark: 0 },
      );
      return new Response(stream);
    });
    const port = serve(app);
    const socket = await Bun.connect({
      hostname: "127.0.0.1",
      port,
      socket: { data() {} },
    });
    socket.pause();
    socket.write("GET /flood HTTP/1.1\r\nHost: a\r\n\r\n");
    await Bun.sleep(200);
    const stalled = produced;
    await Bun.sleep(100);
    expect(produced).toBe(stalled);
    expect(produced).toBeLessThan(16 * 1024 * 1024);
    socket.terminate();
  });

  test("a client that leaves aborts a request that is still being worked on", async () => {
    const begun = Promise.withResolvers<void>();
    const aborted = Promise.withResolvers<void>();
    const app = new Hono<{ Bindings: ServeEnv }>();
    app.get("/wait", async (c) => {
      c.req.raw.signal.addEventListener("abort", () => aborted.resolve());
      begun.resolve();
      await aborted.promise;
      return c.text("late");
    });
    const socket = await Bun.connect({
      hostname: "127.0.0.1",
      port: serve(app),
      socket: { data() {} },
    });
    socket.write("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    await begun.promise;
    socket.terminate();
    await aborted.promise;
  });

  test("a body that the application does not read is not taken from the client either", async () => {
    const app = new Hono<{ Bindings: ServeEnv }>();
    const go = Promise.withResolvers<void>();
    app.post("/slow", async (c) => {
      await go.promise;
      return c.text(String((await c.req.arrayBuffer()).byteLength));
    });
    const bytes = 64 * 1024 * 1024;
    const port = serve(app, { limits: { bodyBytesMax: bytes } });
    const rest = Buffer.alloc(bytes);
    let sent = 0;
    let text = "";
    const { promise, resolve } = Promise.withResolvers<void>();
    const socket = await Bun.connect({
      hostname: "127.0.0.1",
      port,
      socket: {
        data: (_socket, chunk) => {
          text += chunk.toString("latin1");
          resolve();
        },
        drain: (s) => {
          sent += s.write(rest.subarray(sent));
        },
      },
    });
    socket.write(`POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: ${bytes}\r\n\r\n`);
    sent += socket.write(rest.subarray(sent));
    await Bun.sleep(200);
    expect(sent).toBeLessThan(bytes / 2);
    go.resolve();
    await promise;
    expect(text).toEndWith(`\r\n\r\n${bytes}`);
    socket.terminate();
  });

  test("a stream that fails underway resets the connection instead of ending the body", async () => {
    const app = new Hono<{ Bindings: ServeEnv }>();
    app.get("/breaks", () => {
      let pulls = 0;
      const stream = new ReadableStream<Uint8Array>({
        async pull(controller) {
          await Bun.sleep(5);
          if (pulls++ === 2) controller.error(new Error("disk gone"));
          else controller.enqueue(new Uint8Array([97]));
        },
      });
      return new Response(stream);
    });
    const out = await raw(serve(app), "GET /breaks HTTP/1.1\r\nHost: a\r\n\r\n");
    expect(out).toContain("transfer-encoding: chunked");
    expect(out).not.toContain("0\r\n\r\n");
  });
});
