/** Every error of the API: `application/problem+json` (RFC 9457) with a stable code and a fix. */
import { Invalid } from "../control/invalid.ts";
import { EXIT, Failure } from "../error.ts";
import type { Problem } from "./answers.ts";

const TITLES: Readonly<Record<number, string>> = {
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  409: "Conflict",
  413: "Content Too Large",
  415: "Unsupported Media Type",
  422: "Unprocessable Content",
  429: "Too Many Requests",
  500: "Internal Server Error",
  503: "Service Unavailable",
  507: "Insufficient Storage",
};

/** The answer to an error; anything but a Failure is told to the log and not to the caller. */
export function problemOf(error: unknown): Problem {
  const failure =
    error instanceof Failure
      ? error
      : new Failure(
          "internal",
          "the control plane failed to answer",
          "see the control plane's log",
          { status: 500 },
        );
  return {
    type: "about:blank",
    title: TITLES[failure.status] ?? "Error",
    status: failure.status,
    detail: failure.message,
    code: failure.code,
    fix: failure.fix,
    ...(failure instanceof Invalid ? { issues: failure.issues } : {}),
  };
}

export function problemAnswer(error: unknown, headers: Record<string, string> = {}): Response {
  const problem = problemOf(error);
  return new Response(JSON.stringify(problem), {
    status: problem.status,
    headers: {
      "content-type": "application/problem+json",
      ...(problem.status === 401 ? { "www-authenticate": 'Bearer realm="weft"' } : {}),
      ...headers,
    },
  });
}

/** A request that cannot be understood or is not allowed. */
export function refusal(status: number, code: string, message: string, fix: string): Failure {
  return new Failure(code, message, fix, { status, exit: EXIT.refused });
}
