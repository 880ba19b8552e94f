import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createToken, formatToken } from "../src/identity/token.ts";
import { type FlagName, MODE_FLAGS, settle, type Written } from "./flags.ts";
import { controlplaneOptions, nodeOptions, sidecarOptions, tokenOf } from "./start.ts";

const folder = mkdtempSync(join(tmpdir(), "weft-start-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const around = { env: { XDG_STATE_HOME: "/s" }, uid: 1000, version: "1.0.0", terminal: false };

function settings(names: readonly FlagName[], written: Written) {
  return settle(names, written, {});
}
const sidecar = (written: Written) => sidecarOptions(settings(MODE_FLAGS.sidecar, written), around);
const node = (written: Written) => nodeOptions(settings(MODE_FLAGS.node, written), around);
const controlplane = (written: Written) =>
  controlplaneOptions(settings(MODE_FLAGS.controlplane, written), around);

function written(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

describe("sidecar", () => {
  test("fills in what was not said", () => {
    expect(sidecar({ service: "cart", app: ["8080"] })).toEqual({
      mode: "sidecar",
      workloads: [
        {
          service: "cart",
          namespace: "default",
          serviceAccount: "cart",
          app: [{ servicePort: 8080, host: "127.0.0.1", port: 8080, protocol: "http" }],
          upstream: [],
          labels: {},
          locality: "",
          weight: 100,
        },
      ],
      data: "/s/weft/sidecar/default.cart",
      bind: "0.0.0.0",
      portBase: 17_000,
      metricsBind: "127.0.0.1",
      drainMs: 30_000,
      health: "tcp",
      accessLog: false,
      log: "json",
      logLevel: "info",
      version: "1.0.0",
    });
  });

  test("needs a service", () => {
    expect(() => sidecar({})).toThrow("--service is missing");
  });

  test("weft's own ports are not for applications or upstreams", () => {
    expect(() => sidecar({ service: "x", app: ["17001"] })).toThrow("weft's own");
    expect(() => sidecar({ service: "x", app: ["80=[::1]:17010"] })).toThrow("weft's own");
    expect(() => sidecar({ service: "x", upstream: ["db:17222"] })).toThrow("weft's own");
    expect(sidecar({ service: "x", app: ["10.0.0.9:17001"] }).workloads).toHaveLength(1);
  });
});

describe("node", () => {
  test("numbers the ways into the mesh in order", () => {
    const { workloads, data } = node({ workload: ["cart=8080", "db.shop=5432/tcp"] });
    expect(data).toBe("/s/weft/node");
    expect(workloads.map(({ out }) => out)).toEqual([
      { host: "127.0.17.1", port: 17_001 },
      { host: "127.0.17.2", port: 17_001 },
    ]);
    expect(workloads[1]!.namespace).toBe("shop");
  });

  test("reads a file of workloads", () => {
    const file = written(
      "workloads.yaml",
      `- service: cart
  serviceAccount: shop
  app: [8080]
  upstream: ["db:9191"]
  labels: { version: v2 }
  out: 127.0.17.9:17001
- { service: db, app: 5432/tcp, weight: 50 }
`,
    );
    const { workloads } = node({ workloads: file });
    expect(workloads[0]).toMatchObject({
      serviceAccount: "shop",
      labels: { version: "v2" },
      out: { host: "127.0.17.9", port: 17_001 },
    });
    expect(workloads[1]).toMatchObject({ weight: 50, out: { host: "127.0.17.2", port: 17_001 } });
  });

  test.each([
    ["- { servce: cart }", /entry 1: unknown field "servce"/],
    ["- { app: [80] }", /entry 1: service is missing/],
    ["service: cart", /not a list/],
    ["- cart", /entry 1: not a mapping/],
    ["- { service: cart, app: [{}] }", /entry 1, app: not text/],
    ["- { service: cart, weight: -1 }", /weight/],
    ["- { service: cart, out: '0.0.0.0:1' }", /loopback/],
    ["- { service: cart }\n- { service: cart }", /declared twice/],
    [
      "- { service: a, out: '127.0.17.1:9' }\n- { service: b, out: '127.0.17.1:9' }",
      /both reach the mesh by 127.0.17.1:9/,
    ],
  ])("refuses %p", (text, says) => {
    expect(() => node({ workloads: written("bad.yaml", text) })).toThrow(says);
  });

  test("needs workloads", () => {
    expect(() => node({})).toThrow("no workloads");
  });
});

describe("control plane", () => {
  test("fills in what was not said", () => {
    expect(controlplane({})).toMatchObject({
      data: "/s/weft/controlplane",
      bind: "127.0.0.1",
      trustDomain: "weft.local",
      svidTtlMs: 86_400_000,
      restored: false,
    });
  });

  test("settings of NATS that contradict each other are refused", () => {
    expect(() => controlplane({ "nats-creds": "x" })).toThrow("--nats-creds without");
    expect(() => controlplane({ "nats-server": "x", "nats-url": "nats://h:1" })).toThrow(
      "together",
    );
    expect(() => controlplane({ "nats-url": "http://h" })).toThrow("URL");
  });
});

test("a token comes from a file, without its newline", () => {
  const path = written("token", "weft_abc\n");
  expect(tokenOf({ "token-file": path })).toBe("weft_abc");
  expect(tokenOf({})).toBeUndefined();
  expect(() => tokenOf({ "token-file": "/nowhere" })).toThrow("ENOENT");
  expect(() => tokenOf({ "token-file": written("empty", "") })).toThrow("is empty");
});

test("a token on the command line is a short-lived one", () => {
  const token = (exp: number) =>
    formatToken(createToken("https://127.0.0.1:17010", ["a".repeat(64)], exp));
  const short = token(Date.now() + 600_000);
  expect(tokenOf({ token: short })).toBe(short);
  expect(() => tokenOf({ token: token(0) })).toThrow("more than an hour");
  expect(() => tokenOf({ token: token(Date.now() + 7_200_000) })).toThrow("more than an hour");
  expect(() => tokenOf({ token: "weft_x" })).toThrow("damaged");
});
