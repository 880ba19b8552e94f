/** Applications and callers for tests, treated byte by byte. */
import { connect, type Socket } from "node:net";
import type { Room } from "../net/room.ts";
import type { Target } from "../snapshot/snapshot.ts";
import type { DataPlaneOptions } from "./data-plane.ts";
import { type ServiceSpec, snapshotOf, TestPlane, type TestWorkload } from "./mesh.fixture.ts";

const stops: (() => void)[] = [];

/** Stops everything that this file started: for `afterAll`. */
export function stopAll(): void {
  for (const stop of stops.splice(0)) stop();
}

export function newPlane(more: Partial<DataPlaneOptions> = {}): TestPlane {
  const plane = new TestPlane(more);
  stops.push(() => plane.plane.stop());
  return plane;
}

export function serve(fetch: (request: Request) => Response | Promise<Response>): number {
  const server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch });
  stops.push(() => void server.stop(true));
  return server.port ?? 0;
}

export interface RawServer {
  readonly port: number;
  /** Connections accepted so far. */
  accepted: number;
  /** Open now. */
  open: number;
  stop(): void;
}

export interface RawHandlers {
  /** `connection` counts from 0. */
  open?(socket: Bun.Socket, connection: number): void;
  data?(socket: Bun.Socket, text: string, connection: number): void;
  end?(socket: Bun.Socket, connection: number): void;
}

/** A server that treats each connection by hand; `port` 0 = any. */
export function rawServer(handlers: RawHandlers, port = 0): RawServer {
  const numbers = new WeakMap<object, number>();
  const server = Bun.listen({
    hostname: "127.0.0.1",
    port,
    allowHalfOpen: true,
    socket: {
      open(socket) {
        numbers.set(socket, state.accepted++);
        state.open++;
        handlers.open?.(socket as Bun.Socket, state.accepted - 1);
      },
      data(socket, chunk) {
        const connection = numbers.get(socket) ?? -1;
        handlers.data?.(socket as Bun.Socket, chunk.toString("latin1"), connection);
      },
      end(socket) {
        if (handlers.end === undefined) socket.end();
        else handlers.end(socket as Bun.Socket, numbers.get(socket) ?? -1);
      },
      close() {
        state.open--;
      },
      error() {},
    },
  });
  const state: RawServer = {
    port: server.port,
    accepted: 0,
    open: 0,
    stop: () => server.stop(true),
  };
  stops.push(state.stop);
  return state;
}

/** A workload `web` that calls the services described. */
export function caller(plane: TestPlane, services: readonly ServiceSpec[]): TestWorkload {
  const web = plane.workload("web");
  web.snapshot.set(snapshotOf(services));
  return web;
}

/** What `service` is to this workload on port 80. */
export function targetOf(web: TestWorkload, service: string): Target {
  return web.snapshot.value!.services.get(`default/${service}`)!.ports.get(80)!.target;
}

/** A plain service `app` at these ports. */
export function plainApp(
  ports: readonly number[],
  policy: ServiceSpec["policy"] = {},
): ServiceSpec {
  const endpoints = ports.map((port) => ({ ports: { "80": port } }));
  return { service: "app", port: 80, policy, endpoints };
}

/** Waits until `holds`, at most `ms`. */
export async function eventually(holds: () => boolean, ms = 3000): Promise<boolean> {
  const end = performance.now() + ms;
  while (!holds() && performance.now() < end) await Bun.sleep(5);
  return holds();
}

/** How many more connections there is room for. */
export function roomLeft(room: Room): number {
  let left = 0;
  let counting = true;
  for (let more = true; more; ) {
    more = false;
    room.claim({
      reuse: () => false,
      granted() {
        more = true;
        if (counting) left++;
        else room.release();
      },
      refused() {},
    });
  }
  counting = false;
  for (let i = 0; i < left; i++) room.release();
  return left;
}

/** Everything a node socket hears until it closes. */
export interface Heard {
  text: string;
  ended: boolean;
  error: string;
}

export function talk(
  port: number,
  text: string,
  localAddress = "127.0.0.1",
): { socket: Socket; heard: Promise<Heard> } {
  const socket = connect({ host: "127.0.0.1", port, localAddress, allowHalfOpen: true });
  const heard: Heard = { text: "", ended: false, error: "" };
  socket.on("data", (chunk) => {
    heard.text += chunk.toString("latin1");
  });
  socket.on("end", () => {
    heard.ended = true;
    socket.end();
  });
  socket.on("error", (error: Error & { code?: string }) => {
    heard.error = error.code ?? "error";
  });
  if (text !== "") socket.write(text, "latin1");
  return {
    socket,
    heard: new Promise((resolve) => socket.on("close", () => resolve(heard))),
  };
}

/** A piece of a conversation, seen from the caller: what it hears before it says the next thing. */
export type Line = { readonly hear: string } | { readonly say: string };
