/** What a proxy tells about itself: `/metrics`, `/healthz`, `/readyz`, and its admin socket. */
import { Hono } from "hono";
import type { LogLevel } from "../telemetry/log.ts";

/** One condition of being ready. */
export interface ReadyCheck {
  readonly name: string;
  readonly ok: boolean;
  /** What is missing, or how it stands. */
  readonly detail: string;
}

export interface AdminFacts {
  /** Prometheus text. */
  readonly metrics: () => string;
  readonly checks: () => readonly ReadyCheck[];
}

export interface AdminActions {
  /** The configuration in force, as JSON. */
  readonly configDump: () => object;
  readonly drain: () => void;
  readonly logLevel: () => LogLevel;
  readonly setLogLevel: (level: LogLevel) => void;
}

const LEVELS: readonly LogLevel[] = ["debug", "info", "warn", "error"];

/** Read-only facts, on the metrics port. */
export function createAdmin(facts: AdminFacts): Hono {
  const app = new Hono();
  app.get("/metrics", (c) =>
    c.body(facts.metrics(), 200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" }),
  );
  app.get("/healthz", (c) => c.text("ok\n"));
  app.get("/readyz", (c) => {
    const checks = facts.checks();
    const missing = checks.filter(({ ok }) => !ok);
    const status = missing.length === 0 ? 200 : 503;
    const verdict =
      missing.length === 0
        ? "ready\n"
        : `not ready: ${missing.map(({ name, detail }) => `${name}: ${detail}`).join("; ")}\n`;
    if (c.req.query("verbose") === undefined) return c.text(verdict, status);
    const lines = checks.map(({ name, ok, detail }) => `[${ok ? "+" : "-"}] ${name}: ${detail}\n`);
    return c.text(verdict + lines.join(""), status);
  });
  return app;
}

/** What changes a proxy, on its admin socket, besides everything of `createAdmin`. */
export function createAdminSocket(facts: AdminFacts, actions: AdminActions): Hono {
  const app = createAdmin(facts);
  app.get("/config", (c) => c.json(actions.configDump()));
  app.post("/drain", (c) => {
    actions.drain();
    return c.text("draining\n", 202);
  });
  app.get("/log-level", (c) => c.text(`${actions.logLevel()}\n`));
  app.put("/log-level/:level", (c) => {
    const level = LEVELS.find((known) => known === c.req.param("level"));
    if (level === undefined) return c.text(`one of ${LEVELS.join(", ")}\n`, 400);
    actions.setLogLevel(level);
    return c.text(`${level}\n`);
  });
  return app;
}
