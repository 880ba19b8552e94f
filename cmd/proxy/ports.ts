/** Binding ports: some must be exactly the one asked for, others may move. */
import { EXIT, Failure } from "../../src/error.ts";

/** How far a port may move before this is a mistake. */
const TRIES = 50;

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}

/** Binds exactly `port`, because something relies on its number; `chosenBy` is the flag that says it. */
export function bindExactly<T>(
  what: string,
  host: string,
  port: number,
  chosenBy: string,
  bind: () => T,
): T {
  try {
    return bind();
  } catch (error) {
    throw bindFailure(what, host, port, chosenBy, error);
  }
}

/** Binds `port` or the next free one. */
export function bindNext<T>(
  what: string,
  host: string,
  port: number,
  bind: (port: number) => T,
): T {
  for (let offset = 0; ; offset++) {
    try {
      return bind(port + offset);
    } catch (error) {
      if (codeOf(error) !== "EADDRINUSE" || offset >= TRIES || port + offset >= 65_535) {
        throw bindFailure(what, host, port, "--port-base", error);
      }
    }
  }
}

function bindFailure(
  what: string,
  host: string,
  port: number,
  chosenBy: string,
  error: unknown,
): Failure {
  const at = `${host}:${port}`;
  switch (codeOf(error)) {
    case "EADDRINUSE":
      return new Failure(
        "port_busy",
        `${what} ${at} is in use by another process`,
        `stop it (ss -ltnp shows which), or choose another port with ${chosenBy}`,
        { cause: error, exit: EXIT.failed },
      );
    case "EADDRNOTAVAIL":
      return new Failure(
        "address_not_here",
        `${what} ${at} is not an address of this host`,
        "give an address of this host, or 0.0.0.0 for all",
        { cause: error, exit: EXIT.failed },
      );
    case "EACCES":
      return new Failure(
        "port_forbidden",
        `${what} ${at} may not be used by this user`,
        "choose a port above 1023",
        { cause: error, exit: EXIT.failed },
      );
    default:
      return new Failure(
        "port_failed",
        `${what} ${at} cannot be bound: ${error instanceof Error ? error.message : error}`,
        "look at its address and port: this host must have them, and let this user use them",
        {
          cause: error,
          exit: EXIT.failed,
        },
      );
  }
}
