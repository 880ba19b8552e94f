/** The API over a real store and authority; the bus is down, as it may be at any time. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openBus } from "../bus/bus.ts";
import { ensureAdminToken } from "../control/admin-token.ts";
import type { ControlState } from "../control/apply.ts";
import { Conditions } from "../control/conditions.ts";
import { Distribution } from "../control/distribute.ts";
import { createIssuer } from "../control/issue.ts";
import { ownBusCredentials } from "../control/own-identity.ts";
import { Publisher } from "../control/publish.ts";
import { openAuthority } from "../identity/ca.ts";
import { openConfigKey } from "../identity/config-key.ts";
import { openNatsAuthority } from "../identity/nats-auth.ts";
import { readSecret } from "../identity/secret-file.ts";
import type { TlsPeer } from "../net/connection.ts";
import { Registry } from "../registry/registry.ts";
import type { ServedApp } from "../serve/serve.ts";
import { openStore, type Store } from "../store/store.ts";
import { createLogger } from "../telemetry/log.ts";
import { Metrics } from "../telemetry/metrics.ts";
import { createApi } from "./api.ts";

export interface Asked {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  readonly json: Record<string, unknown>;
}

export interface AskOptions {
  readonly method?: string;
  readonly body?: unknown;
  /** "" sends none; absent sends the admin token. */
  readonly token?: string;
  readonly peer?: TlsPeer;
  readonly headers?: Record<string, string>;
}

export interface ApiFixture {
  readonly folder: string;
  readonly store: Store;
  readonly token: string;
  readonly registry: Registry;
  readonly time: { now: number };
  readonly app: ServedApp;
  readonly fetch: (path: string, options?: AskOptions) => Promise<Response>;
  readonly ask: (path: string, options?: AskOptions) => Promise<Asked>;
  close(): Promise<void>;
}

export async function startApi(): Promise<ApiFixture> {
  const folder = mkdtempSync(join(tmpdir(), "weft-api-"));
  const store = openStore(join(folder, "weft.db"));
  const time = { now: Date.now() };
  const now = () => time.now;
  const authority = await openAuthority(folder, "weft.local", now);
  const nats = openNatsAuthority(join(folder, "keys", "nats.seed"));
  const key = openConfigKey(join(folder, "keys", "config.key"));
  const log = createLogger({ format: "text", level: "error", now, write: () => {} });
  // Nothing listens on port 1.
  const busUrl = "nats://127.0.0.1:1";
  const credentials = ownBusCredentials(nats, now);
  const bus = openBus({ servers: [busUrl], inboxPrefix: "_INBOX_test", credentials });
  const publisher = await Publisher.start({ store, bus, key, restored: false, now, log });
  const configKeys = [{ kid: key.kid, key: key.publicKey }];
  const { bundle, rootHashes, trustDomain } = authority;
  const state: ControlState = { store, trustDomain, now, committed: () => {} };
  const registry = new Registry({
    ...{ store, bus, now, clock: now, log, hostAddresses: () => ["127.0.0.1"] },
    ...{ ensureService: () => {}, publish: () => Promise.resolve(0) },
  });
  const mesh = { trustDomain, bundle, configKeys };
  const endpoints = () => registry.endpoints();
  const distribution = new Distribution({ store, publisher, endpoints, mesh, log });
  const issuer = createIssuer({
    ...{ store, authority, nats, configKeys: () => configKeys, natsUrl: busUrl, now },
    svidTtlMs: 3_600_000,
  });
  const url = "https://127.0.0.1:17010";
  ensureAdminToken({ store, dataFolder: folder, url, rootHashes, now });
  const token = readSecret(join(folder, "admin.token"))?.trim() ?? "";
  const app = createApi({
    ...{ state, store, issuer, registry, publisher, distribution, busUrl, trustDomain, bundle },
    ...{ rootHashes, url, now, log, dataFolder: folder, version: "test", startedAt: time.now },
    ...{ busStatus: () => bus.status.value, metrics: new Metrics() },
    conditions: new Conditions(store, trustDomain),
  });
  const fetch = async (path: string, options: AskOptions = {}): Promise<Response> => {
    const bearer = options.token ?? token;
    const { body } = options;
    const init: RequestInit = {
      method: options.method ?? (body === undefined ? "GET" : "POST"),
      headers: {
        ...(bearer === "" ? {} : { authorization: `Bearer ${bearer}` }),
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...options.headers,
      },
      ...(body === undefined
        ? {}
        : {
            body:
              typeof body === "string" || body instanceof Uint8Array ? body : JSON.stringify(body),
          }),
    };
    return app.request(path, init, { peer: options.peer, remoteAddress: "127.0.0.1" });
  };
  return {
    ...{ folder, store, token, registry, time, app, fetch },
    ask: async (path, options) => {
      const response = await fetch(path, options);
      const text = await response.text();
      const isJson = (response.headers.get("content-type") ?? "").includes("json");
      const json = isJson ? (JSON.parse(text) as Record<string, unknown>) : {};
      return { status: response.status, headers: response.headers, text, json };
    },
    close: async () => {
      publisher.close();
      distribution.close();
      await bus.close();
      store.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
