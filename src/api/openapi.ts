/** The description of the API, made from the table that also serves it. */
import type { Route } from "./route.ts";

const TYPES: Readonly<Record<string, object>> = {
  string: { type: "string" },
  boolean: { type: "boolean" },
  integer: { type: "integer" },
  strings: { type: "array", items: { type: "string" } },
  objects: { type: "array", items: { type: "object" } },
};

const PROBLEM = {
  type: "object",
  required: ["type", "title", "status", "detail", "code", "fix"],
  properties: {
    type: { type: "string" },
    title: { type: "string" },
    status: { type: "integer" },
    detail: { type: "string" },
    code: { type: "string", description: "Stable: programs may rely on it" },
    fix: { type: "string", description: "The next step" },
    issues: { type: "array", items: { type: "object" } },
  },
} as const;

export function openApi(routes: readonly Route[], version: string): object {
  const paths: Record<string, Record<string, object>> = {};
  for (const route of routes) {
    const path = paths[route.path] ?? {};
    paths[route.path] = path;
    path[route.method.toLowerCase()] = operation(route);
  }
  return {
    openapi: "3.1.0",
    info: { title: "weft control plane", version },
    paths,
    components: {
      schemas: { Problem: PROBLEM },
      securitySchemes: {
        token: { type: "http", scheme: "bearer" },
        certificate: { type: "mutualTLS" },
      },
    },
  };
}

function operation(route: Route): object {
  const parameters = [
    ...[...route.path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({
      ...{ name, in: "path", required: true, schema: { type: "string" } },
    })),
    ...Object.entries(route.query ?? {}).map(([name, type]) => ({
      ...{ name, in: "query", schema: { type } },
    })),
  ];
  const problem = { $ref: "#/components/schemas/Problem" };
  return {
    summary: route.summary,
    ...(parameters.length === 0 ? {} : { parameters }),
    ...(route.body === undefined ? {} : { requestBody: requestBody(route.body) }),
    ...securityOf(route),
    responses: {
      [route.status ?? 200]: { description: "Done" },
      default: {
        description: "An error",
        content: { "application/problem+json": { schema: problem } },
      },
    },
  };
}

function requestBody(fields: Readonly<Record<string, string>>): object {
  const properties: Record<string, object> = {};
  const required: string[] = [];
  for (const [name, shape] of Object.entries(fields)) {
    const [type = "", optional] = shape.split("?");
    properties[name] = TYPES[type] ?? {};
    if (optional === undefined) required.push(name);
  }
  const schema = { type: "object", additionalProperties: false, properties, required };
  return { required: true, content: { "application/json": { schema } } };
}

function securityOf({ access }: Route): object {
  if (access === "open") return { security: [] };
  return { security: [access === "peer" ? { certificate: [] } : { token: [] }] };
}
