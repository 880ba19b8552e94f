/** What goes wrong on the bus, for callers to tell apart. */
import { ErrorCode, NatsError } from "nats";

/** `denied`: the credentials do not allow it; `refused`: the server answered with an error. */
export type BusErrorCode = "down" | "timeout" | "denied" | "no_responder" | "refused";

export class BusError extends Error {
  readonly code: BusErrorCode;

  constructor(code: BusErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "BusError";
    this.code = code;
  }
}

export function toError(value: unknown): Error {
  return value instanceof Error ? value : new Error(String(value));
}

export function toBusError(what: string, error: unknown): BusError {
  if (error instanceof BusError) return error;
  const text = `${what}: ${toError(error).message}`;
  if (!(error instanceof NatsError)) return new BusError("down", text, { cause: error });
  if (error.isPermissionError()) return new BusError("denied", text, { cause: error });
  if (error.code === ErrorCode.Timeout) return new BusError("timeout", text, { cause: error });
  if (error.code === ErrorCode.NoResponders) {
    return new BusError("no_responder", text, { cause: error });
  }
  return new BusError("down", text, { cause: error });
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

/** Answer of a JetStream request: the object, or a `BusError` with the server's description. */
export function jetstreamAnswer(what: string, bytes: Uint8Array): Record<string, unknown> {
  let answer: unknown;
  try {
    answer = JSON.parse(Buffer.from(bytes).toString("utf8"));
  } catch (cause) {
    throw new BusError("refused", `${what}: the answer is not JSON`, { cause });
  }
  if (!isRecord(answer)) throw new BusError("refused", `${what}: the answer is not an object`);
  const { error } = answer;
  if (isRecord(error)) {
    throw new BusError("refused", `${what}: ${String(error["description"])}`, {
      cause: error["err_code"],
    });
  }
  return answer;
}
