/** A workload's side of the API: what it asks, and what it understands of the answers. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join as path } from "node:path";
import golden from "../../test/fixtures/contracts/membership.json" with { type: "json" };
import problems from "../../test/fixtures/contracts/problems.json" with { type: "json" };
import { issueOwnSvid } from "../control/own-identity.ts";
import { openAuthority } from "../identity/ca.ts";
import { type Listener, listenTls } from "../net/listen.ts";
import { tlsContext } from "../net/tls.ts";
import { serveApp } from "../serve/serve.ts";
import { type Credentials, join, renew, requestAccess } from "./control-client.ts";

let folder: string;
let api: Listener;
let url: string;
let credentials: Credentials;
let answer: () => Response;
const asked: { path: string; authorization: string | null; body: unknown }[] = [];

beforeAll(async () => {
  folder = mkdtempSync(path(tmpdir(), "weft-client-"));
  const authority = await openAuthority(folder, "weft.local", Date.now);
  const own = await issueOwnSvid(authority, { hostnames: [], addresses: [] }, 3_600_000);
  const context = tlsContext({ cert: own.chainPem, key: own.keyPem, ca: authority.bundle });
  const app = {
    fetch: async (request: Request) => {
      const authorization = request.headers.get("authorization");
      const { pathname } = new URL(request.url);
      asked.push({ path: pathname, authorization, body: await request.json() });
      return answer();
    },
  };
  api = listenTls({
    ...{ host: "127.0.0.1", port: 0, requestCert: "optional", alpn: [] },
    context: () => context,
    accept: (connection) => serveApp(connection, app),
  });
  url = `https://127.0.0.1:${api.port}`;
  credentials = { keyPem: own.keyPem, chainPem: own.chainPem, bundle: authority.bundle };
});

afterAll(() => {
  api.closeAll();
  rmSync(folder, { recursive: true, force: true });
});

test("golden: a workload joins, renews and asks for access in these words", async () => {
  const token = "TOKEN";
  answer = () => Response.json(golden.join.answer);
  expect(await join(url, credentials.bundle, token, golden.join.request)).toEqual(
    golden.join.answer,
  );
  answer = () => Response.json(golden.svid.answer);
  expect(await renew(url, credentials, golden.svid.request)).toEqual(golden.svid.answer);
  answer = () => Response.json(golden.access.answer);
  const access = await requestAccess(url, credentials, golden.access.request);
  expect(access).toEqual(golden.access.answer);
  const sent = (exchange: { path: string; request: object }, authorization: string | null) => ({
    ...{ path: exchange.path, authorization, body: exchange.request },
  });
  expect(asked.splice(0)).toEqual([
    sent(golden.join, `Bearer ${token}`),
    sent(golden.svid, null),
    sent(golden.access, null),
  ]);
});

test.each(problems.cases)("golden: the problem of $path is told on", async ({ problem }) => {
  const headers = { "content-type": problems.type };
  answer = () => Response.json(problem, { status: problem.status, headers });
  const failure = await requestAccess(url, credentials, golden.access.request).catch((e) => e);
  expect(failure).toMatchObject({ code: problem.code, fix: problem.fix, status: problem.status });
  expect(failure.message).toEndWith(problem.detail);
});

test("an answer that lacks something is no answer of a control plane", async () => {
  for (const missing of ["chain", "bundle", "configKeys", "natsUrl", "natsJwt", "instance"]) {
    const part = Object.entries(golden.svid.answer).filter(([key]) => key !== missing);
    answer = () => Response.json(Object.fromEntries(part));
    const failure = await renew(url, credentials, golden.svid.request).catch((e) => e);
    expect([missing, failure.code]).toEqual([missing, "controlplane_answer"]);
  }
});

test("clocks that disagree are named, not the network", async () => {
  for (const [skewMs, code] of [
    [3_600_000, /NOT_YET_VALID/],
    [-7_200_000, /EXPIRED/],
  ] as const) {
    const at = path(folder, `skew${skewMs}`);
    const authority = await openAuthority(at, "weft.local", () => Date.now() + skewMs);
    const own = await issueOwnSvid(authority, { hostnames: [], addresses: [] }, 3_600_000);
    const context = tlsContext({ cert: own.chainPem, key: own.keyPem, ca: authority.bundle });
    const served = listenTls({
      ...{ host: "127.0.0.1", port: 0, requestCert: "optional", alpn: [] },
      context: () => context,
      accept: (connection) => serveApp(connection, { fetch: () => Response.json({}) }),
    });
    const elsewhere = `https://127.0.0.1:${served.port}`;
    const joined = join(elsewhere, authority.bundle, "TOKEN", golden.join.request);
    const failure = await joined.then(
      () => undefined,
      (error: unknown) => error,
    );
    expect(failure).toMatchObject({ code: "clocks_differ", message: expect.stringMatching(code) });
    served.closeAll();
  }
});
