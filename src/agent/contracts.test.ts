/** A workload's side of what it hears and says on the bus. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import golden from "../../test/fixtures/contracts/config-set.json" with { type: "json" };
import said from "../../test/fixtures/contracts/presence.json" with { type: "json" };
import type { Bus } from "../bus/bus.ts";
import { type NatsFixture, startNats } from "../bus/nats.fixture.ts";
import type { SetCheck } from "../snapshot/assemble.ts";
import { configKeysOf } from "../snapshot/envelope.ts";
import { GOLDEN_KEY } from "../snapshot/golden.fixture.ts";
import { createLogger } from "../telemetry/log.ts";
import { Link } from "./link.ts";
import { Presence } from "./presence.ts";

const { workload } = said;
const grants = ["out.default.cart", "eps.default.cart.*"];
const log = createLogger({ format: "json", level: "error", now: Date.now, write: () => {} });

let nats: NatsFixture;
let control: Bus;
let link: Link | undefined;

beforeAll(async () => {
  nats = await startNats();
  const credentials = nats.control();
  control = await nats.connect(() => credentials);
  await control.ensureBucket();
});
afterEach(() => link?.close());
afterAll(() => nats.close());

async function openLink(check: SetCheck = () => []): Promise<Link> {
  const credentials = nats.workload(workload, grants);
  link = new Link({
    ...{ name: workload, url: nats.server.url, credentials: () => credentials, bundle: [] },
    ...{ ca: undefined, initial: undefined, grants, check, log },
    configKeys: configKeysOf([{ kid: GOLDEN_KEY.kid, key: GOLDEN_KEY.publicKey }]),
    ...{ now: Date.now, random: Math.random },
  });
  await until(() => link?.connected === true);
  return link;
}

async function until(check: () => boolean): Promise<void> {
  const deadline = performance.now() + 5_000;
  while (!check()) {
    if (performance.now() > deadline) throw new Error("not in time");
    await Bun.sleep(5);
  }
}

/** Everything said on a subject, from now on. */
function hear(subject: string): unknown[] {
  const all: unknown[] = [];
  control.subscribe(subject, (_, data) => {
    all.push(JSON.parse(Buffer.from(data).toString()));
  });
  return all;
}

async function put(revision: (typeof golden.revisions)[number]): Promise<void> {
  for (const [key, base64] of Object.entries(revision.messages)) {
    await control.kvPut(key, Buffer.from(base64, "base64"));
  }
}

test("golden: two revisions are taken over and acknowledged, a refused one with its reason", async () => {
  const acks = hear(said.acknowledged.subject);
  const [first, second] = golden.revisions;
  await put(first!);
  const [reason] = said.refused.message.refused;
  const opened = await openLink((set) => (set.rev === 2 ? [reason!] : []));
  await until(() => acks.length > 0);
  expect(acks.at(-1)).toEqual(said.acknowledged.message);
  expect(Object.fromEntries(opened.set.value?.documents ?? [])).toEqual(first!.documents);
  await put(second!);
  await until(() => (acks.at(-1) as { rev: number }).rev === 2);
  expect(acks.at(-1)).toEqual(said.refused.message);
  await opened.close();
  const next = await openLink();
  await until(() => next.set.value !== undefined);
  expect(Object.fromEntries(next.set.value?.documents ?? [])).toEqual(second!.documents);
});

test("golden: a workload registers, renews, and leaves in these words", async () => {
  const requests: [string, unknown][] = [];
  const answers: object[] = [said.register.answer, said.unknown.answer];
  control.reply("weft.rpc.>", (subject, data) => {
    requests.push([subject, JSON.parse(Buffer.from(data).toString())]);
    return Buffer.from(JSON.stringify(answers.shift() ?? said.register.answer));
  });
  const opened = await openLink();
  const presence = new Presence(
    { log },
    () => opened,
    async () => {},
  );
  presence.register(said.register.request);
  await until(() => presence.registered);
  presence.health(false, 3);
  // "not registered" is taken for what it is: it registers again, then tells its health anew.
  await until(() => requests.length >= 4);
  await presence.leave(1_000);
  const expected = [said.register, said.renew, said.register, said.renew, said.deregister];
  expect(requests).toEqual(expected.map(({ subject, request }) => [subject, request]));
});
