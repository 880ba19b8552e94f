/** The control plane's API: one table of routes, served by Hono behind our own listener. */
import { type Context, Hono } from "hono";
import { Failure } from "../error.ts";
import type { ServeEnv } from "../serve/serve.ts";
import { requirePresent } from "../store/store.ts";
import { identify } from "./access.ts";
import { readJson } from "./body.ts";
import type { OpenStreams } from "./events.ts";
import { openApi } from "./openapi.ts";
import { problemAnswer, problemOf, refusal } from "./problem.ts";
import { checkQuery } from "./query.ts";
import type { ApiParts, Call, Route } from "./route.ts";
import { DOCUMENT_ROUTES } from "./routes-documents.ts";
import { IDENTITY_ROUTES } from "./routes-identity.ts";
import { OPERATE_ROUTES } from "./routes-operate.ts";

export const ROUTES: readonly Route[] = [...DOCUMENT_ROUTES, ...IDENTITY_ROUTES, ...OPERATE_ROUTES];

type Served = Context<{ Bindings: ServeEnv }>;

export function createApi(parts: ApiParts): Hono<{ Bindings: ServeEnv }> {
  const app = new Hono<{ Bindings: ServeEnv }>();
  const description = JSON.stringify(openApi(ROUTES, parts.version));
  const requests = parts.metrics.counters("weft_api_requests_total", "Answers of the API", [
    "method",
    "path",
    "status",
  ]);
  const streams: OpenStreams = new Set();
  for (const route of ROUTES) {
    const path = route.path.replaceAll(/\{(\w+)\}/g, ":$1");
    app.on(route.method, path, async (c) => {
      const response = await answer(route, parts, streams, c);
      requests.slot(route.method, route.path, String(response.status)).value += 1;
      // Nobody will read it: a stream must not go on behind an answer to HEAD.
      if (c.req.method === "HEAD") await response.body?.cancel();
      return response;
    });
  }
  app.get("/openapi.json", (c) => c.body(description, 200, { "content-type": "application/json" }));
  app.notFound((c) => notFound(c));
  app.onError((error) => {
    tell(parts, error, "api");
    return problemAnswer(error);
  });
  return app;
}

async function answer(
  route: Route,
  parts: ApiParts,
  streams: OpenStreams,
  c: Served,
): Promise<Response> {
  try {
    const caller = identify(
      route.access,
      c.req.header("authorization"),
      c.env,
      parts.store,
      parts.now(),
    );
    if (route.access !== "open") checkQuery(c.req.queries(), route.query ?? {});
    if (route.method !== "GET") requirePresent(parts.store);
    const body = route.body === undefined ? {} : await readJson(c.req.raw, route.body);
    const call: Call = {
      parts,
      streams,
      ...caller,
      env: c.env,
      host: hostOf(c),
      signal: c.req.raw.signal,
      param: (name) => c.req.param(name) ?? "",
      query: (name) => c.req.query(name),
      flag: (name) => c.req.query(name) === "true",
      count: (name) => {
        const text = c.req.query(name);
        return text === undefined ? undefined : Number(text);
      },
      body,
    };
    return toResponse(await route.handle(call), route.status ?? 200);
  } catch (error) {
    tell(parts, error, route.path);
    return problemAnswer(error);
  }
}

function toResponse(result: unknown, status: number): Response {
  if (result instanceof Response) return result;
  if (result === undefined) return new Response(null, { status: 204 });
  return new Response(JSON.stringify(result), {
    status,
    headers: { "content-type": "application/json", "cache-control": "no-store" },
  });
}

/** A caller's mistake is the caller's to see; what went wrong here belongs in the log. */
function tell(parts: ApiParts, error: unknown, path: string): void {
  if (error instanceof Failure && error.status < 500) {
    parts.log.debug("a request was refused", { path, code: error.code });
  } else parts.log.error("a request failed", { path, code: problemOf(error).code, error });
}

function hostOf(c: Served): string {
  try {
    return new URL(c.req.url).hostname;
  } catch {
    return "";
  }
}

function notFound(c: Served): Response {
  const allowed = ROUTES.filter((route) => matches(route.path, c.req.path)).map((r) => r.method);
  const { method, path } = c.req;
  if (allowed.length === 0) {
    const fix = "see /openapi.json for what there is";
    return problemAnswer(refusal(404, "not_found", `there is no ${path}`, fix));
  }
  const allow = [...new Set(allowed)].join(", ");
  const message = `${path} does not take ${method}`;
  return problemAnswer(refusal(405, "method_not_allowed", message, `use ${allow}`), { allow });
}

function matches(pattern: string, path: string): boolean {
  const wanted = pattern.split("/");
  const given = path.split("/");
  return (
    wanted.length === given.length &&
    wanted.every((part, i) => (part.startsWith("{") ? given[i] !== "" : part === given[i]))
  );
}
