import { afterEach, expect, jest, test } from "bun:test";
import { connect as connectRaw } from "node:net";
import { callbackErrors } from "./boundary.ts";
import type { Connection, ConnectionHandler } from "./connection.ts";
import { dial } from "./dial.ts";
import { type Listener, listen } from "./listen.ts";

const listeners: Listener[] = [];

afterEach(() => {
  for (const listener of listeners.splice(0)) listener.closeAll();
});

function serve(accept: (c: Connection) => ConnectionHandler): number {
  const listener = listen({ host: "127.0.0.1", port: 0, accept });
  listeners.push(listener);
  return listener.port;
}

const SILENT: ConnectionHandler = { data() {}, end() {}, drain() {}, close() {} };

function connect(port: number, handler: Partial<ConnectionHandler>): Promise<Connection> {
  return new Promise((resolve, reject) => {
    dial(
      { host: "127.0.0.1", port, timeoutMs: 1000 },
      (c) => {
        resolve(c);
        return { ...SILENT, ...handler };
      },
      reject,
    );
  });
}

test("everything written arrives, in order, before the FIN", async () => {
  const done = Promise.withResolvers<void>();
  const hash = new Bun.CryptoHasher("sha256");
  let size = 0;
  const port = serve((c) => ({
    ...SILENT,
    data(_, chunk) {
      size += chunk.length;
      hash.update(chunk);
      // A slow reader: the writer must queue.
      c.pause();
      setTimeout(() => c.resume(), 0);
    },
    end() {
      done.resolve();
      c.end();
    },
  }));
  const sent = new Bun.CryptoHasher("sha256");
  const c = await connect(port, {});
  let queued = false;
  for (let i = 0; i < 24; i++) {
    const chunk = Buffer.alloc(1_000_000, i);
    sent.update(chunk);
    if (!c.write(chunk)) queued = true;
  }
  sent.update("tail");
  c.writeHead("tail", undefined);
  c.end();
  await done.promise;
  expect(queued).toBe(true);
  expect(size).toBe(24_000_004);
  expect(hash.digest("hex")).toBe(sent.digest("hex"));
});

test("a half-closed connection still receives, and closes once both sides are done", async () => {
  const port = serve((c) => ({
    ...SILENT,
    end() {
      setTimeout(() => {
        c.write(Buffer.from("late"));
        c.end();
      }, 20);
    },
  }));
  const heard: string[] = [];
  const closed = Promise.withResolvers<void>();
  const c = await connect(port, {
    data: (_, chunk) => heard.push(chunk.toString()),
    end: () => heard.push("end"),
    close: (_, error) => {
      heard.push(`close ${error}`);
      closed.resolve();
    },
  });
  c.end();
  await closed.promise;
  expect(heard).toEqual(["late", "close undefined"]);
});

test("close() delivers what was written although the peer is still sending", async () => {
  const port = serve((c) => ({
    ...SILENT,
    data() {
      c.write(Buffer.from("400 and bye"));
      c.close();
    },
  }));
  const closed = Promise.withResolvers<Error | undefined>();
  let text = "";
  const c = await connect(port, {
    data: (_, chunk) => {
      text += chunk.toString();
    },
    end: (peer) => peer.end(),
    close: (_, error) => closed.resolve(error),
  });
  for (let i = 0; i < 50; i++) c.write(Buffer.alloc(100_000));
  await closed.promise;
  expect(text).toBe("400 and bye");
});

test("destroy() resets the peer", async () => {
  const port = serve((c) => ({ ...SILENT, data: () => c.destroy() }));
  const closed = Promise.withResolvers<Error | undefined>();
  const c = await connect(port, { close: (_, error) => closed.resolve(error) });
  c.write(Buffer.from("x"));
  expect(String((await closed.promise) as Error)).toContain("ECONNRESET");
});

test("an exception in a handler costs one connection and is counted", async () => {
  const before = callbackErrors().get("data") ?? 0;
  const port = serve(() => ({
    ...SILENT,
    data() {
      throw new Error("a bug");
    },
  }));
  const closed = Promise.withResolvers<void>();
  const c = await connect(port, { close: () => closed.resolve() });
  c.write(Buffer.from("x"));
  await closed.promise;
  expect(callbackErrors().get("data")).toBe(before + 1);
});

test("a refused connection fails once", async () => {
  const listener = listen({ host: "127.0.0.1", port: 0, accept: () => SILENT });
  listener.closeAll();
  await expect(connect(listener.port, {})).rejects.toThrow();
});

test("a connect that never answers fails by its own timer", async () => {
  const started = performance.now();
  const failed = Promise.withResolvers<Error>();
  // 192.0.2.0/24 is reserved for documentation: no host answers, and some kernels refuse at once.
  dial({ host: "192.0.2.1", port: 9, timeoutMs: 60 }, () => SILENT, failed.resolve);
  expect(await failed.promise).toBeInstanceOf(Error);
  expect(performance.now() - started).toBeLessThan(1000);
});

test("a close of which the peer takes nothing is given up, one that it reads slowly is not", async () => {
  const ends: Promise<string>[] = [];
  const opened: Connection[] = [];
  const port = serve((c) => {
    opened.push(c);
    const { promise, resolve } = Promise.withResolvers<string>();
    ends.push(promise);
    return {
      data() {},
      end() {},
      drain() {},
      close: () => resolve("closed"),
    };
  });
  const deaf = connectRaw(port, "127.0.0.1").pause();
  const slow = connectRaw(port, "127.0.0.1").pause();
  deaf.on("error", () => {});
  while (opened.length < 2) await Bun.sleep(1);
  jest.useFakeTimers();
  try {
    const bytes = Buffer.alloc(16 * 1024 * 1024);
    for (const c of opened) {
      c.write(bytes);
      c.close();
      expect(c.queuedBytes).toBeGreaterThan(0);
    }
    const [first, second] = opened.map((c) => c.queuedBytes);
    const reader = opened.find((c) => c.remotePort === slow.localPort)!;
    slow.resume();
    while (reader.queuedBytes >= Math.min(first!, second!)) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    slow.pause();
    jest.advanceTimersByTime(300_000);
    expect(await ends[opened.findIndex((c) => c !== reader)]!).toBe("closed");
    expect(reader.closed).toBe(false);
  } finally {
    jest.useRealTimers();
    for (const socket of [deaf, slow]) socket.destroy();
  }
});
