/**
 * The two kinds of failure in weft.
 *
 * `MeshError` is what happens to traffic: a reason code every proxy, log line and metric shares.
 * `Failure` is what happens to an operator: one line that says what is wrong, and a next step.
 */

/** Why the mesh answered a request itself. Sent between proxies as `weft-reason`. */
export type Reason =
  | "no_route"
  | "ambiguous_port"
  | "denied"
  | "unauthenticated"
  | "limited"
  | "bad_request"
  | "headers_too_large"
  | "invalid_backend"
  | "connect_failed"
  | "app_unreachable"
  | "no_endpoint"
  | "upstream_reset"
  | "overflow"
  | "draining"
  | "upstream_invalid"
  | "timeout";

/** HTTP status, Envoy-style response flag, and gRPC status of a reason. */
export interface ReasonRow {
  readonly status: number;
  readonly flag: string;
  readonly grpc: number;
}

export const REASONS: Readonly<Record<Reason, ReasonRow>> = {
  no_route: { status: 404, flag: "NR", grpc: 12 },
  ambiguous_port: { status: 404, flag: "NR", grpc: 12 },
  denied: { status: 403, flag: "RBAC", grpc: 7 },
  unauthenticated: { status: 401, flag: "UAEX", grpc: 16 },
  limited: { status: 429, flag: "RL", grpc: 8 },
  bad_request: { status: 400, flag: "DPE", grpc: 13 },
  headers_too_large: { status: 431, flag: "DPE", grpc: 8 },
  invalid_backend: { status: 500, flag: "NC", grpc: 13 },
  connect_failed: { status: 503, flag: "UF", grpc: 14 },
  app_unreachable: { status: 503, flag: "UF", grpc: 14 },
  no_endpoint: { status: 503, flag: "UH", grpc: 14 },
  upstream_reset: { status: 503, flag: "UC", grpc: 14 },
  overflow: { status: 503, flag: "UO", grpc: 14 },
  draining: { status: 503, flag: "DI", grpc: 14 },
  upstream_invalid: { status: 502, flag: "UPE", grpc: 13 },
  timeout: { status: 504, flag: "UT", grpc: 4 },
};

export function isReason(text: string): text is Reason {
  return Object.hasOwn(REASONS, text);
}

/** Something happened to a request or a connection. */
export class MeshError extends Error {
  readonly reason: Reason;

  constructor(reason: Reason, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "MeshError";
    this.reason = reason;
  }
}

/** Exit codes of the command line. `run` passes its child's code on instead. */
export const EXIT = {
  ok: 0,
  failed: 1,
  usage: 2,
  refused: 3,
  unreachable: 4,
  timedOut: 5,
} as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** Something an operator must act on: `message` says what is wrong, `fix` the next step. */
export class Failure extends Error {
  /** Stable, snake_case; the `code` of problem+json answers. */
  readonly code: string;
  readonly fix: string;
  readonly exit: ExitCode;
  /** HTTP status where the failure is answered by the API. */
  readonly status: number;

  constructor(
    code: string,
    message: string,
    fix: string,
    options: ErrorOptions & { readonly exit?: ExitCode; readonly status?: number } = {},
  ) {
    super(message, options);
    this.name = "Failure";
    this.code = code;
    this.fix = fix;
    this.exit = options.exit ?? EXIT.failed;
    this.status = options.status ?? 500;
  }
}
