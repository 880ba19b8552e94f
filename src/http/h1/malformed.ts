import { MeshError } from "../../error.ts";

/** Thrown inside the codec; the decoder that catches it knows whom to blame. */
export class Malformed extends Error {
  readonly status: number;

  constructor(message: string, status = 400) {
    super(message);
    this.name = "Malformed";
    this.status = status;
  }
}

/** A message the decoder refused. After it the connection cannot be read any further. */
export class H1Error extends MeshError {
  /** What a client is told: 400, 414, 417, 431, 501 or 505; 502 or 503 for what an upstream sent. */
  readonly status: number;

  constructor(
    reason: "bad_request" | "headers_too_large" | "upstream_invalid" | "upstream_reset",
    status: number,
    message: string,
    options?: ErrorOptions,
  ) {
    super(reason, message, options);
    this.name = "H1Error";
    this.status = status;
  }
}

/** Blames the client that sent the request. */
export function requestError(cause: unknown): H1Error {
  if (!(cause instanceof Malformed)) {
    return new H1Error("bad_request", 400, "request could not be decoded", { cause });
  }
  const tooLarge = cause.status === 414 || cause.status === 431;
  const reason = tooLarge ? "headers_too_large" : "bad_request";
  return new H1Error(reason, cause.status, cause.message);
}

/** Blames the upstream that sent the response. */
export function responseError(cause: unknown): H1Error {
  if (!(cause instanceof Malformed)) {
    return new H1Error("upstream_invalid", 502, "response could not be decoded", { cause });
  }
  return new H1Error("upstream_invalid", 502, cause.message);
}
