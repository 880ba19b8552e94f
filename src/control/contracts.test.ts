/** The control plane's side of configuration on the bus: what it writes there, byte by byte. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import golden from "../../test/fixtures/contracts/config-set.json" with { type: "json" };
import bodies from "../../test/fixtures/contracts/documents.json" with { type: "json" };
import type { Bus } from "../bus/bus.ts";
import { type NatsFixture, startNats } from "../bus/nats.fixture.ts";
import { parseSources } from "../config/parse.ts";
import { configKeysOf, openMessage } from "../snapshot/envelope.ts";
import { GOLDEN_KEY } from "../snapshot/golden.fixture.ts";
import { openStore, type Store } from "../store/store.ts";
import { createLogger } from "../telemetry/log.ts";
import { compileDocuments } from "./documents.ts";
import { Publisher } from "./publish.ts";

let nats: NatsFixture;
let bus: Bus;
let folder: string;
let store: Store;
let publisher: Publisher;
let time = 0;

beforeAll(async () => {
  nats = await startNats();
  const credentials = nats.control();
  bus = await nats.connect(() => credentials);
  folder = mkdtempSync(join(tmpdir(), "weft-contracts-"));
  store = openStore(join(folder, "weft.db"));
  const log = createLogger({ format: "json", level: "error", now: Date.now, write: () => {} });
  const rest = { store, bus, key: GOLDEN_KEY, restored: false, log };
  publisher = await Publisher.start({ ...rest, now: () => time });
});

afterAll(async () => {
  publisher.close();
  store.close();
  await nats.close();
  rmSync(folder, { recursive: true, force: true });
});

test.each(golden.revisions)("golden: a revision is written in these bytes", async (revision) => {
  time = revision.t;
  const desired = Object.entries(revision.documents).map(([key, body]) => ({ key, body }));
  const rev = publisher.publish(desired);
  expect(await publisher.flushed(rev, 5_000)).toBe(true);
  const keys = configKeysOf([{ kid: GOLDEN_KEY.kid, key: GOLDEN_KEY.publicKey }]);
  const opened = openMessage((await bus.kvGet("head")) ?? new Uint8Array(0), "head", keys);
  expect(opened.kind === "opened" ? opened.document : opened).toEqual(revision.head);
  for (const [key, base64] of Object.entries(revision.messages)) {
    const bytes = (await bus.kvGet(key)) ?? new Uint8Array(0);
    expect(`${key}: ${Buffer.from(bytes).toString("base64")}`).toBe(`${key}: ${base64}`);
  }
});

test("golden: documents become these bodies", () => {
  const { resources, issues } = parseSources([{ name: "golden", text: bodies.yaml }]);
  expect(issues).toEqual([]);
  const plain = resources.map(({ resource }) => resource);
  const desired = compileDocuments(plain, bodies.live, bodies.mesh);
  const made = desired.map(({ key, body }) => [key, body] as const);
  expect<unknown>(Object.fromEntries(made)).toEqual(bodies.documents);
});
