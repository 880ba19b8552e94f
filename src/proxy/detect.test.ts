import { afterAll, describe, expect, test } from "bun:test";
import { connect, type Socket } from "node:net";
import { type ServiceSpec, snapshotOf, type TestPlane, type TestWorkload } from "./mesh.fixture.ts";
import {
  caller,
  eventually,
  type Line,
  newPlane,
  type RawHandlers,
  rawServer,
  serve,
  stopAll,
  talk,
} from "./servers.fixture.ts";
import { MARIADB, POSTGRES } from "./sessions.fixture.ts";

afterAll(stopAll);

/** What a session through two proxies may take longer than without them, milliseconds. */
const ADDED_MS = 50;
/** Other tests share the machine. */
const PATIENCE = 3;

interface Reached {
  readonly plane: TestPlane;
  readonly web: TestWorkload;
  /** Leads to `app` through two proxies, without a declared protocol. */
  readonly port: number;
}

/** A service `app` at each of these ports, each behind a proxy of its own. */
function reach(appPorts: readonly number[], spec: Partial<ServiceSpec> = {}): Reached {
  const planes = appPorts.map((port) => {
    const plane = newPlane();
    plane.workload("app", [{ servicePort: 80, host: "127.0.0.1", port }]);
    return plane;
  });
  const plane = planes[0]!;
  const endpoints = planes.map((one) => ({ ...one.endpoint("app"), id: String(one.meshPort) }));
  const web = caller(plane, [{ service: "app", port: 80, detect: true, endpoints, ...spec }]);
  const service = { namespace: "default", service: "app" };
  return { plane, web, port: plane.plane.listenUpstream(web.local, service, "127.0.0.1", 0) };
}

function verdicts({ plane }: Reached): Record<string, number> {
  const line = /weft_protocol_detections_total\{.*peer="default\/app".*verdict="(\w+)"\} (\d+)/g;
  const found = plane.metrics.render().matchAll(line);
  return Object.fromEntries([...found].map(([, verdict, count]) => [verdict, Number(count)]));
}

const requests = ({ plane }: Reached): number =>
  Number(
    /weft_requests_total\{direction="outbound".*peer="default\/app".*code="200".*\} (\d+)/.exec(
      plane.metrics.render(),
    )?.[1] ?? 0,
  );

/** Milliseconds until all was said and heard; fails when something else is heard. */
function converse(port: number, lines: readonly Line[]): Promise<number> {
  const start = performance.now();
  return new Promise((resolve, reject) => {
    const socket = connect({ host: "127.0.0.1", port });
    let heard = "";
    let at = 0;
    const step = () => {
      for (; at < lines.length; at++) {
        const line = lines[at]!;
        if ("say" in line) socket.write(line.say, "latin1");
        else if (heard.startsWith(line.hear)) heard = heard.slice(line.hear.length);
        else if (line.hear.startsWith(heard)) return;
        else return reject(new Error(`heard ${JSON.stringify(heard)} at line ${at}`));
      }
      socket.destroy();
      resolve(performance.now() - start);
    };
    socket.on("connect", step);
    socket.on("data", (chunk) => {
      heard += chunk.toString("latin1");
      step();
    });
    socket.on("error", reject);
    socket.on("close", () => reject(new Error(`closed at line ${at}`)));
  });
}

/** The other side of a conversation. */
function scripted(lines: readonly Line[]): RawHandlers {
  const state = new WeakMap<object, { heard: string; at: number }>();
  const step = (socket: Bun.Socket, text: string) => {
    const one = state.get(socket) ?? { heard: "", at: 0 };
    state.set(socket, one);
    one.heard += text;
    for (; one.at < lines.length; one.at++) {
      const line = lines[one.at]!;
      if ("hear" in line) socket.write(Buffer.from(line.hear, "latin1"));
      else if (one.heard.startsWith(line.say)) one.heard = one.heard.slice(line.say.length);
      else return;
    }
  };
  return { open: (socket) => step(socket, ""), data: (socket, text) => step(socket, text) };
}

const SERVER_FIRST: readonly (readonly [string, readonly Line[]])[] = [
  ["MariaDB", MARIADB],
  [
    "SMTP",
    [
      { hear: "220 mx.example ESMTP\r\n" },
      { say: "EHLO client.example\r\n" },
      { hear: "250-mx.example\r\n250 STARTTLS\r\n" },
      { say: "QUIT\r\n" },
      { hear: "221 bye\r\n" },
    ],
  ],
  [
    "NATS",
    [
      { hear: 'INFO {"server_id":"x","max_payload":1048576}\r\n' },
      { say: 'CONNECT {"verbose":false}\r\nPING\r\n' },
      { hear: "PONG\r\n" },
    ],
  ],
];

const CALLER_FIRST: readonly (readonly [string, readonly Line[]])[] = [
  ["postgres", POSTGRES],
  ["redis", [{ say: "*1\r\n$4\r\nPING\r\n" }, { hear: "+PONG\r\n" }]],
  ["redis, typed", [{ say: "GET /a\r\n" }, { hear: "$-1\r\n" }, { say: "GET /b\r\n" }]],
  ["ZooKeeper", [{ say: "ruok" }, { hear: "imok" }]],
  ["HTTP/2", [{ say: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" }, { hear: "\x00\x00\x00\x04" }]],
];

describe("protocols without a stall", () => {
  test.each([...SERVER_FIRST, ...CALLER_FIRST])("%s", async (name, lines) => {
    const app = rawServer(scripted(lines));
    const reached = reach([app.port]);
    await converse(app.port, lines);
    const direct = await converse(app.port, lines);
    const first = await converse(reached.port, lines);
    const added = Math.max(first, await converse(reached.port, lines)) - direct;
    console.log(`${name}: ${added.toFixed(1)} ms more than direct`);
    expect(added).toBeLessThan(ADDED_MS * PATIENCE);
    const serverFirst = SERVER_FIRST.some(([known]) => known === name);
    expect(verdicts(reached)).toEqual(
      serverFirst ? { server_first: 1, remembered: 1 } : { not_http: 2 },
    );
  });

  test("a service that speaks first where the last spoke HTTP", async () => {
    const lines = SERVER_FIRST[0]![1];
    const app = rawServer(scripted(lines));
    const reached = reach([app.port]);
    reached.web.local.verdicts.put("default/app:80", "http");
    const took = await converse(reached.port, lines);
    console.log(`MariaDB instead of HTTP: ${took.toFixed(1)} ms`);
    expect(took).toBeLessThan(ADDED_MS * PATIENCE);
    expect(verdicts(reached)).toEqual({ server_first: 1 });
    expect(reached.web.local.verdicts.get("default/app:80")).toBe("server_first");
  });

  test("a caller that says what could be a request and stops is passed on", async () => {
    const lines = [{ say: "GET /a" }, { hear: "what?" }] as const;
    const reached = reach([rawServer(scripted(lines)).port]);
    expect(await converse(reached.port, lines)).toBeLessThan(3000);
    expect(verdicts(reached)).toEqual({ not_http: 1 });
  });

  test("a service that speaks in the middle of what could be a request", async () => {
    const reached = reach([
      rawServer({
        open: (socket) => void setTimeout(() => socket.write("hello\n"), 100),
        data: (socket, text) => void socket.write(`<${text}>`),
      }).port,
    ]);
    const lines = [{ say: "GET /" }, { hear: "hello\n<GET />" }];
    expect(await converse(reached.port, lines)).toBeLessThan(800);
    expect(verdicts(reached)).toEqual({ server_first: 1 });
  });
});

describe("HTTP", () => {
  const echo = () =>
    serve(async (request) => new Response(`${request.method} ${await request.text()}`));

  test("is served as requests, with or without a tunnel before it", async () => {
    const reached = reach([echo()]);
    for (let i = 0; i < 3; i++) {
      const init = { method: "POST", body: "x".repeat(100_000), keepalive: false };
      const answer = await fetch(`http://127.0.0.1:${reached.port}/${i}`, init);
      expect(await answer.text()).toBe(`POST ${init.body}`);
    }
    expect(requests(reached)).toBe(3);
    expect(verdicts(reached)).toEqual({ http: 3 });
    // The tunnel of the first was not wanted, and counts nowhere.
    expect(reached.plane.metrics.render()).not.toMatch(
      /weft_tcp_connections_total\{direction="outbound"/,
    );
    expect(await eventually(() => reached.plane.plane.active === 0)).toBe(true);
  });

  test("curl", async () => {
    const reached = reach([echo()]);
    const curl = Bun.spawn(["curl", "-s", "-d", "hi", `http://127.0.0.1:${reached.port}/`]);
    expect(await new Response(curl.stdout).text()).toBe("POST hi");
    expect(requests(reached)).toBe(1);
  });

  test("byte by byte", async () => {
    const reached = reach([echo()]);
    const { socket, heard } = talk(reached.port, "");
    socket.setNoDelay(true);
    const head = "POST /a/b HTTP/1.1\r\nHost: app\r\nConnection: close\r\nContent-Length: 2\r\n";
    for (const byte of `${head}\r\nhi`) {
      socket.write(byte);
      await Bun.sleep(2);
    }
    expect((await heard).text).toEndWith("POST hi");
    expect(verdicts(reached)).toEqual({ http: 1 });
    expect(requests(reached)).toBe(1);
  });

  test("several requests in one piece", async () => {
    const reached = reach([echo()]);
    const last = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    const { heard } = talk(reached.port, `${"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2)}${last}`);
    expect((await heard).text.match(/HTTP\/1\.1 200/g)).toHaveLength(3);
    expect(requests(reached)).toBe(3);
  });

  test("answered by nobody: the caller hears why, also when it asks after the failure", async () => {
    const reached = reach([1]);
    const late = talk(reached.port, "");
    const failed = /weft_tcp_connections_total\{direction="outbound".*reason="app_unreachable"\} 1/;
    expect(await eventually(() => failed.test(reached.plane.metrics.render()))).toBe(true);
    const request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    late.socket.write(request);
    expect((await late.heard).text).toContain("503 Service Unavailable");
    expect((await talk(reached.port, request).heard).text).toContain("app_unreachable");
  });

  test("to a service that the proxy must still ask for", async () => {
    const plane = newPlane();
    plane.workload("app", [{ servicePort: 80, host: "127.0.0.1", port: echo() }]);
    const web = plane.workload("web");
    const service = { namespace: "default", service: "app" };
    plane.onAccess = () => {
      const endpoints = [plane.endpoint("app")];
      const known = snapshotOf([{ service: "app", port: 80, detect: true, endpoints }]);
      setTimeout(() => web.snapshot.set(known), 20);
      return true;
    };
    const port = plane.plane.listenUpstream(web.local, service, "127.0.0.1", 0);
    const answer = await fetch(`http://127.0.0.1:${port}/`, { method: "POST", body: "early" });
    expect(await answer.text()).toBe("POST early");
    expect(verdicts({ plane, web, port })).toEqual({ http: 1 });
  });

  test("malformed: refused, not tunnelled", async () => {
    const app = rawServer({});
    const reached = reach([app.port]);
    const { text } = await talk(reached.port, "GET / HTTP/1.1\r\nA : b\r\n\r\n").heard;
    expect(text).toContain("400 Bad Request");
    expect(verdicts(reached)).toEqual({ http: 1 });
  });

  test("a server that is tired of waiting does not speak first", async () => {
    const answer = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n";
    const reached = reach([rawServer({ open: (socket) => void socket.end(answer) }).port]);
    expect((await talk(reached.port, "").heard).text).toBe(answer);
    expect(reached.web.local.verdicts.get("default/app:80")).toBeUndefined();
  });
});

describe("opaque", () => {
  test("a caller that ends first hears all", async () => {
    const app = rawServer({ end: (socket) => void socket.end("all of it") });
    const reached = reach([app.port]);
    const { socket, heard } = talk(reached.port, "");
    socket.end();
    expect(await heard).toEqual({ text: "all of it", ended: true, error: "" });
    const half = talk(reached.port, "GET /");
    half.socket.end();
    expect((await half.heard).text).toBe("all of it");
    expect(verdicts(reached)).toEqual({ silent: 1, not_http: 1 });
  });

  test("nobody speaks: nothing happens, until one leaves", async () => {
    const app = rawServer({});
    const reached = reach([app.port]);
    const { socket } = talk(reached.port, "");
    expect(await eventually(() => app.open === 1)).toBe(true);
    await Bun.sleep(300);
    expect([app.open, socket.destroyed]).toEqual([1, false]);
    socket.resetAndDestroy();
    expect(await eventually(() => app.open === 0)).toBe(true);
    expect(verdicts(reached)).toEqual({ silent: 1 });
    expect(await eventually(() => reached.plane.plane.active === 0)).toBe(true);
  });

  test("TLS stays the application's", async () => {
    const { cert, key } = await selfSigned();
    const server = Bun.serve({
      ...{ hostname: "127.0.0.1", port: 0, tls: { cert, key } },
      fetch: () => new Response("secure"),
    });
    try {
      const reached = reach([server.port ?? 0]);
      const curl = Bun.spawn(["curl", "-sk", `https://127.0.0.1:${reached.port}/`]);
      expect(await new Response(curl.stdout).text()).toBe("secure");
      expect(verdicts(reached)).toEqual({ not_http: 1 });
    } finally {
      server.stop(true);
    }
  });

  test("a reset by the application before anybody spoke: another instance is asked", async () => {
    const app = rawServer(scripted(SERVER_FIRST[1]![1]));
    const reached = reach([1, app.port], { policy: { balancer: "round_robin" } });
    for (let i = 0; i < 4; i++) await converse(reached.port, SERVER_FIRST[1]![1]);
    expect(app.accepted).toBe(4);
  });

  test("no instance: the caller is reset at once", async () => {
    const reached = reach([1]);
    const start = performance.now();
    const heard = await talk(reached.port, "\x16\x03\x01").heard;
    expect(heard).toEqual({ text: "", ended: false, error: "ECONNRESET" });
    expect((await talk(reached.port, "").heard).error).toBe("ECONNRESET");
    expect(performance.now() - start).toBeLessThan(1000);
  });

  test("a declared protocol is not looked at", async () => {
    const app = rawServer({ data: (socket, text) => void socket.end(`raw ${text}`) });
    const planes = newPlane();
    planes.workload("app", [{ servicePort: 80, host: "127.0.0.1", port: app.port }]);
    const endpoints = [planes.endpoint("app")];
    const web = caller(planes, [{ service: "app", port: 80, protocol: "tcp", endpoints }]);
    const service = { namespace: "default", service: "app" };
    const port = planes.plane.listenUpstream(web.local, service, "127.0.0.1", 0);
    const request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    expect((await talk(port, request).heard).text).toBe(`raw ${request}`);
    expect(verdicts({ plane: planes, web, port })).toEqual({});
  });

  test("a drain does not wait for those who never spoke", async () => {
    const reached = reach([rawServer({}).port]);
    const { heard } = talk(reached.port, "");
    expect(await eventually(() => reached.plane.plane.active === 0)).toBe(true);
    await Bun.sleep(50);
    await reached.plane.plane.drain(0, 5000);
    expect((await heard).error).toBe("");
  });

  test("bulk bytes both ways, held ones first and in order", async () => {
    const app = rawServer({
      data: (socket, text) => void socket.write(Buffer.from(text, "latin1")),
    });
    const reached = reach([app.port]);
    const { socket } = talk(reached.port, "");
    let text = "";
    socket.on("data", (chunk) => {
      text += chunk.toString("latin1");
    });
    socket.setNoDelay(true);
    const words = "GET /one two three".split(/(?<=[ /])/);
    for (const word of words) {
      socket.write(word);
      await Bun.sleep(5);
    }
    await written(socket, "x".repeat(200_000));
    const all = `${words.join("")}${"x".repeat(200_000)}`;
    expect(await eventually(() => text.length === all.length)).toBe(true);
    expect(text).toBe(all);
    socket.destroy();
  });
});

function written(socket: Socket, text: string): Promise<void> {
  return new Promise((resolve) => socket.write(text, () => resolve()));
}

async function selfSigned(): Promise<{ readonly cert: string; readonly key: string }> {
  const openssl = Bun.spawn(
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=a -out - -keyout -".split(
      " ",
    ),
    { stderr: "ignore" },
  );
  const text = await new Response(openssl.stdout).text();
  const [key = ""] =
    /-----BEGIN PRIVATE KEY-----[\s\S]+?-----END PRIVATE KEY-----\n/.exec(text) ?? [];
  const [cert = ""] = /-----BEGIN CERT[\s\S]+?-----END CERTIFICATE-----\n/.exec(text) ?? [];
  return { cert, key };
}
