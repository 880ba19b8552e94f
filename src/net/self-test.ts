/**
 * Tries at start what weft uses of Bun without Bun promising it: the executable carries the one
 * version that the tests ran on, and another must fail here and not in the middle of traffic.
 */
import { createSecureContext } from "node:tls";
import { Failure } from "../error.ts";
import { adopt } from "./adopt.ts";
import { type BunSocket, bunConnect, bunListen, upgradeServer } from "./bun-socket.ts";

const TIMEOUT_MS = 2000;
const TEXT = Buffer.from("weft");

/** What a step shows; a step that shows nothing in time has failed, too. */
type Show = (shown: boolean) => void;

const QUIET = { end() {}, drain() {}, close() {}, error() {} };

/** @throws Failure when this runtime is not the one weft was made for. */
export async function checkRuntime(): Promise<void> {
  const steps: Record<string, (show: Show) => () => void> = {
    "text as latin1": latin1,
    "sockets from descriptors, writes in part": descriptors,
    "TLS on an accepted socket": upgrades,
  };
  const failed = await Promise.all(
    Object.entries(steps).map(async ([name, step]) => ((await run(step)) ? undefined : name)),
  );
  const names = failed.filter((name) => name !== undefined);
  if (names.length === 0) return;
  throw new Failure(
    "runtime",
    `Bun ${Bun.version} does not do what weft needs: ${names.join("; ")}`,
    "use the executable as it was built; it carries its own Bun",
  );
}

async function run(step: (show: Show) => () => void): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const timer = setTimeout(() => resolve(false), TIMEOUT_MS);
  let clean: () => void = () => {};
  try {
    clean = step(resolve);
    return await promise;
  } catch {
    return false;
  } finally {
    clearTimeout(timer);
    clean();
  }
}

function latin1(show: Show): () => void {
  const buffer = Buffer.alloc(4) as Buffer & {
    latin1Write(text: string, offset: number): number;
    latin1Slice(from: number, to: number): string;
  };
  buffer.latin1Write("\xe9f", 1);
  show(buffer.latin1Slice(1, 3) === "\xe9f");
  return () => {};
}

/** One end writes part of a buffer, the other answers from a socket made of the descriptor. */
function descriptors(show: Show): () => void {
  const listener = bunListen<undefined>({
    ...{ hostname: "127.0.0.1", port: 0, allowHalfOpen: true },
    socket: {
      ...QUIET,
      data(raw, chunk) {
        const open = (adopted: BunSocket<undefined>) => void adopted.write(chunk);
        const accepted = raw as BunSocket<undefined> & { readonly fd: number };
        adopt(accepted, undefined, { ...QUIET, open }, () => show(false));
      },
    },
  });
  void bunConnect<undefined>({
    ...{ hostname: "127.0.0.1", port: listener.port, allowHalfOpen: true, data: undefined },
    socket: {
      ...QUIET,
      open: (socket: BunSocket<undefined>) => void socket.write(TEXT, 1, 2),
      data(socket: BunSocket<undefined>, chunk: Uint8Array) {
        show(Buffer.from(chunk).equals(TEXT.subarray(1, 3)));
        socket.terminate();
      },
    },
  });
  return () => listener.stop(true);
}

/** A handshake that fails for want of a certificate, but on both sides and for that reason. */
function upgrades(show: Show): () => void {
  const secureContext = createSecureContext({ minVersion: "TLSv1.3" }).context;
  const listener = bunListen<undefined>({
    ...{ hostname: "127.0.0.1", port: 0, allowHalfOpen: true },
    socket: {
      ...QUIET,
      data(raw, initialData) {
        upgradeServer<undefined>(raw, {
          ...{ isServer: true, initialData, data: undefined },
          tls: { secureContext, requestCert: true, rejectUnauthorized: true },
          socket: {
            ...QUIET,
            data: () => show(false),
            handshake: (_socket, ok) => show(!ok),
          },
        });
      },
    },
  });
  bunConnect<undefined>({
    ...{ hostname: "127.0.0.1", port: listener.port, allowHalfOpen: true, data: undefined },
    tls: { secureContext, serverName: "localhost", rejectUnauthorized: true },
    socket: { ...QUIET, data() {}, handshake() {} },
  }).catch(() => undefined);
  return () => listener.stop(true);
}
