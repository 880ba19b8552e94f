/** Certificates that live six seconds, under load. WEFT_LONG=1: 20 rotations, otherwise 4. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { load } from "../harness/load.ts";
import { ask, run, type Sidecar, TestMesh, until } from "../harness/mesh.ts";
import { type App, echo } from "../harness/servers.ts";

const rotations = process.env["WEFT_LONG"] === "1" ? 20 : 4;

let mesh: TestMesh;
let app: App;
let web: Sidecar;
let cart: Sidecar;

beforeAll(async () => {
  mesh = await TestMesh.start(["--svid-ttl=6s"]);
  app = echo("cart");
  cart = await mesh.sidecar({ service: "cart", app: [`8080=${app.port}`] });
  web = await mesh.sidecar({ service: "web" });
  await until("cart answers", async () => (await ask(web.outbound, "cart")).ok);
}, 60_000);

afterAll(async () => {
  app?.stop();
  await mesh?.stop();
});

async function serial(sidecar: Sidecar): Promise<string> {
  const shown = await run(
    [
      ...["openssl", "s_client", "-connect", `127.0.0.1:${sidecar.meshPort}`],
      ...["-servername", "p8080.cart.default.weft.local", "-alpn", "http/1.1"],
    ],
    { stdin: "" },
  );
  const pem = /-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----\n/.exec(
    shown.stdout,
  )?.[0];
  const parsed = await run(["openssl", "x509", "-noout", "-serial"], { stdin: pem ?? "" });
  return parsed.stdout.trim();
}

test(
  `${rotations} rotations under load: no request fails`,
  async () => {
    const traffic = load(() => ask(web.outbound, "cart"), { concurrency: 8, perSecond: 400 });
    const seen = new Set<string>();
    const started = performance.now();
    await until(
      "enough certificates",
      async () => {
        const now = await serial(cart);
        if (now !== "") seen.add(now);
        return seen.size > rotations;
      },
      rotations * 6_000 + 20_000,
    );
    await traffic.stop();
    const took = Math.round(performance.now() - started);
    console.log(`${seen.size - 1} rotations in ${took} ms: ${traffic.sent} requests`);
    expect(traffic.failures).toEqual([]);
  },
  rotations * 6_000 + 60_000,
);
