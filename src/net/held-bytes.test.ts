/** What a connection does with bytes that arrive while it is paused, call by call of its socket. */
import { expect, test } from "bun:test";
import { callbackErrors } from "./boundary.ts";
import type { BunSocket } from "./bun-socket.ts";
import { Connection, type ConnectionHandler, pendingBytes } from "./connection.ts";

const { handlers } = Connection;

/** A connection on a socket that does nothing, whose handler pauses at every piece. */
function paused(handler: Partial<ConnectionHandler> = {}) {
  const c = new Connection();
  const socket = {
    data: c,
    write: (bytes: Uint8Array) => bytes.length,
    ...{ end() {}, shutdown() {}, terminate() {}, pause() {}, resume() {} },
  } as unknown as BunSocket<Connection>;
  c.attach(socket);
  const heard: string[] = [];
  c.handler = {
    data(_, chunk) {
      heard.push(Buffer.from(chunk).toString());
      c.pause();
    },
    end: () => void heard.push("end"),
    drain() {},
    close: () => void heard.push("close"),
    ...handler,
  };
  return { c, socket, heard, says: (text: string) => handlers.data(socket, Buffer.from(text)) };
}

test("pieces come one by one, in order, and are counted for as long as they are held", () => {
  const before = pendingBytes();
  const { c, socket, heard, says } = paused();
  for (const text of ["a", "bb", "ccc"]) says(text);
  handlers.end(socket);
  const held: number[] = [];
  for (let i = 0; i < 4; i++) {
    held.push(c.pendingBytes);
    expect(pendingBytes() - before).toBe(c.pendingBytes);
    c.resume();
  }
  expect(heard).toEqual(["a", "bb", "ccc", "end"]);
  expect(held).toEqual([6, 5, 3, 0]);
  expect(pendingBytes()).toBe(before);
});

test("whatever is held when it closes is heard before that, and counted no more", () => {
  const before = pendingBytes();
  const { socket, heard, says } = paused();
  for (const text of ["a", "bb", "ccc"]) says(text);
  handlers.end(socket);
  handlers.close(socket);
  expect(heard).toEqual(["a", "bb", "ccc", "end", "close"]);
  expect(pendingBytes()).toBe(before);
});

test("an exception over held bytes does not keep the close from its handler", () => {
  const errors = callbackErrors().get("data") ?? 0;
  let broken = false;
  const { c, socket, heard, says } = paused({
    data() {
      if (broken) throw new Error("a bug");
      broken = true;
      c.pause();
    },
  });
  for (const text of ["a", "bb", "ccc"]) says(text);
  handlers.close(socket);
  expect(heard).toEqual(["close"]);
  expect([c.closed, c.destroyed]).toEqual([true, true]);
  expect(callbackErrors().get("data")).toBe(errors + 1);
});
