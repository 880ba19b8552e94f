/** What a workload's credentials allow on a real nats-server, and everything they must not. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { connect, type NatsConnection } from "nats";
import golden from "../../test/fixtures/contracts/rights.json" with { type: "json" };
import type { NatsCredentials } from "../identity/nats-auth.ts";
import {
  openNatsAuthority,
  parseNatsCredentials,
  signNonce,
  WORKLOAD_PAYLOAD_MAX,
} from "../identity/nats-auth.ts";
import { createNkey } from "../identity/nkey.ts";
import { directGetSubject, documentSubject, inboxPrefix, userRights } from "../identity/rights.ts";
import type { Bus } from "./bus.ts";
import { type NatsFixture, startNats } from "./nats.fixture.ts";

const me = { namespace: "default", service: "frontend", instance: "aaaaaaaaaa" };
const granted = ["out.default.cart", "eps.default.cart.*"];
const data = new TextEncoder().encode("x");

let nats: NatsFixture;
let control: Bus;
let mine: Bus;
let raw: NatsConnection;
let heard: string[];

function authenticator(credentials: NatsCredentials) {
  return (nonce?: string) => ({
    jwt: credentials.jwt,
    nkey: "",
    sig: signNonce(credentials, nonce ?? ""),
  });
}

/** Names the operation the server refused, or says that nothing was. */
async function violation(
  attempt: (connection: NatsConnection) => void,
  credentials = nats.workload(me, granted),
): Promise<string> {
  const connection = await connect({
    servers: nats.server.url,
    inboxPrefix: inboxPrefix(me),
    authenticator: authenticator(credentials),
    reconnect: false,
  });
  let refused = "allowed";
  void (async () => {
    for await (const { type, permissionContext } of connection.status()) {
      if (type === "error" && permissionContext !== undefined) {
        refused = permissionContext.operation;
      }
    }
  })();
  attempt(connection);
  await connection.flush();
  await Bun.sleep(5);
  await connection.close();
  return refused;
}

beforeAll(async () => {
  nats = await startNats();
  const own = nats.control();
  control = await nats.connect(() => own);
  await control.ensureBucket();
  for (const key of [
    "head",
    "mesh",
    "out.default.cart",
    "eps.default.cart.0",
    "eps.default.cart.7",
  ])
    await control.kvPut(key, data);
  for (const key of ["in.default.cart", "in.default.frontend", "out.other.secret"])
    await control.kvPut(key, data);
  const credentials = nats.workload(me, granted);
  mine = await nats.connect(() => credentials, inboxPrefix(me));
  raw = await connect({ servers: nats.server.url, authenticator: authenticator(own) });
  heard = [];
  control.subscribe("weft.>", (subject) => heard.push(subject));
});
afterAll(async () => {
  await raw.close();
  await nats.close();
});

describe("allowed", () => {
  test.each(["head", "mesh", "in.default.frontend", "out.default.cart", "eps.default.cart.7"])(
    "reading and hearing %s",
    async (key) => {
      expect(await mine.kvGet(key)).toEqual(data);
      const seen: string[] = [];
      const stop = mine.kvSubscribe(key, (on) => seen.push(on));
      await mine.kvGet(key);
      await control.kvPut(key, data);
      await Bun.sleep(20);
      expect(seen).toEqual([key]);
      stop();
    },
  );

  test("speaking on its own subjects", async () => {
    const id = "default.frontend.aaaaaaaaaa";
    const own = ["weft.rpc.register", "weft.rpc.renew", "weft.rpc.deregister", "weft.ack"];
    for (const subject of [...own, "weft.stats"]) mine.publish(`${subject}.${id}`, data);
    await mine.kvGet("head");
    await Bun.sleep(20);
    expect(heard).toEqual([...own, "weft.stats"].map((subject) => `${subject}.${id}`));
  });
});

describe("answers sent elsewhere", () => {
  const elsewhere = [
    "$KV.weft-config.head",
    "$JS.API.STREAM.PURGE.KV_weft-config",
    "$JS.API.STREAM.DELETE.KV_weft-config",
    "weft.rpc.register.default.cart.bbbbbbbbbb",
    "weft.rpc.deregister.default.cart.bbbbbbbbbb",
    "weft.ack.default.cart.bbbbbbbbbb",
    "_INBOX_controlplane.x",
  ];
  test.each(elsewhere)("neither documents nor answers reach %s", async (reply) => {
    const before = await control.kvGet("head");
    const seen: string[] = [];
    const stops = [
      control.subscribe("_INBOX_controlplane.x", (subject) => seen.push(subject)),
      control.subscribe("weft.*.*.default.cart.>", (subject) => seen.push(subject)),
      control.subscribe("weft.ack.default.cart.>", (subject) => seen.push(subject)),
      control.kvSubscribe("head", (key) => seen.push(key)),
      control.reply("weft.rpc.renew.>", () => data),
    ];
    await control.kvGet("mesh");
    const credentials = nats.workload(me, granted);
    const evil = await connect({
      servers: nats.server.url,
      authenticator: authenticator(credentials),
    });
    evil.publish(directGetSubject("mesh"), new Uint8Array(0), { reply });
    evil.publish("weft.rpc.renew.default.frontend.aaaaaaaaaa", data, { reply });
    await evil.flush();
    await Bun.sleep(30);
    expect(seen).toEqual([]);
    expect(await control.kvGet("head")).toEqual(before);
    for (const stop of stops) stop();
    await evil.close();
  });

  test("while a request from its own inbox is answered", async () => {
    const subject = "weft.rpc.renew.default.frontend.aaaaaaaaaa";
    const error = await mine.request(subject, data, 500).catch((caught) => caught);
    expect(["no_responder", "timeout"]).toContain(error.code);
    const stop = control.reply("weft.rpc.renew.>", (on) => new TextEncoder().encode(on));
    await control.kvGet("mesh");
    expect(new TextDecoder().decode(await mine.request(subject, data))).toBe(subject);
    stop();
  });
});

describe("refused publishing", () => {
  const subjects = [
    // documents: nothing but the control plane writes
    documentSubject("head"),
    documentSubject("out.default.cart"),
    documentSubject("in.default.frontend"),
    // current values of keys that were not granted
    directGetSubject("out.other.secret"),
    directGetSubject("in.default.cart"),
    directGetSubject("eps.default.cart"),
    directGetSubject("eps.default.cart.0.1"),
    directGetSubject("eps.default.other.0"),
    directGetSubject("out.default.>"),
    directGetSubject("*"),
    directGetSubject(">"),
    // other ways to read the stream
    "$JS.API.DIRECT.GET.KV_weft-config",
    "$JS.API.STREAM.MSG.GET.KV_weft-config",
    "$JS.API.INFO",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.LIST",
    "$JS.API.STREAM.INFO.KV_weft-config",
    "$JS.API.CONSUMER.CREATE.KV_weft-config",
    "$JS.API.CONSUMER.CREATE.KV_weft-config.x.$KV.weft-config.head",
    "$JS.API.CONSUMER.DURABLE.CREATE.KV_weft-config.x",
    "$JS.API.CONSUMER.MSG.NEXT.KV_weft-config.x",
    "$JS.API.CONSUMER.LIST.KV_weft-config",
    "$JS.API.CONSUMER.INFO.KV_weft-config.x",
    "$JS.API.CONSUMER.DELETE.KV_weft-config.x",
    // administration
    "$JS.API.STREAM.CREATE.EVIL",
    "$JS.API.STREAM.UPDATE.KV_weft-config",
    "$JS.API.STREAM.DELETE.KV_weft-config",
    "$JS.API.STREAM.PURGE.KV_weft-config",
    "$JS.API.STREAM.MSG.DELETE.KV_weft-config",
    "$JS.API.STREAM.SNAPSHOT.KV_weft-config",
    "$JS.API.STREAM.RESTORE.KV_weft-config",
    "$JS.API.STREAM.PEER.REMOVE.KV_weft-config",
    "$JS.API.STREAM.LEADER.STEPDOWN.KV_weft-config",
    "$JS.API.ACCOUNT.PURGE.X",
    "$JS.FC.KV_weft-config.x",
    "$JS.ACK.KV_weft-config.x.1.1.1.1.1",
    "$SYS.REQ.SERVER.PING",
    "$SYS.REQ.USER.INFO",
    "$SYS.REQ.CLAIMS.UPDATE",
    // somebody else's subjects
    "weft.rpc.register.default.cart.aaaaaaaaaa",
    "weft.rpc.register.default.frontend.bbbbbbbbbb",
    "weft.rpc.renew.other.frontend.aaaaaaaaaa",
    "weft.rpc.deregister.default.cart.aaaaaaaaaa",
    "weft.rpc.other.default.frontend.aaaaaaaaaa",
    "weft.ack.default.cart.aaaaaaaaaa",
    "weft.stats.default.frontend.bbbbbbbbbb",
    "weft.tap.1.default.frontend.aaaaaaaaaa",
    "weft.ack.default.frontend.aaaaaaaaaa.more",
    "_INBOX_default.cart.aaaaaaaaaa.x",
    "_INBOX_controlplane.x",
    "_INBOX.x",
    "anything",
  ];
  test.each(subjects)("%s", async (subject) => {
    expect(await violation((connection) => connection.publish(subject, data))).toBe("publish");
  });
});

describe("limits of one workload", () => {
  /** What the server says when it closes or refuses. */
  async function complaint(attempt: (connection: NatsConnection) => void): Promise<string> {
    const connection = await connect({
      servers: nats.server.url,
      authenticator: authenticator(nats.workload(me, granted)),
      reconnect: false,
    });
    let said = "";
    void (async () => {
      for await (const { type, data: what } of connection.status()) {
        if (type === "error") said = String(what);
      }
    })();
    try {
      attempt(connection);
      await connection.flush();
    } catch (error) {
      return String(error);
    } finally {
      await Bun.sleep(20);
      await connection.close();
    }
    return said;
  }

  const ack = `weft.ack.default.frontend.${me.instance}`;

  test("messages end at 64 KiB", async () => {
    const fits = await complaint((c) => c.publish(ack, new Uint8Array(WORKLOAD_PAYLOAD_MAX)));
    expect(fits).toBe("");
    const tooLong = await complaint((c) =>
      c.publish(ack, new Uint8Array(WORKLOAD_PAYLOAD_MAX + 1)),
    );
    expect(tooLong).toMatch(/MAX_PAYLOAD|Payload/i);
  });

  test("subscriptions end a little beyond what a proxy needs", async () => {
    const many = (count: number) => (c: NatsConnection) => {
      for (let i = 0; i < count; i++) c.subscribe(documentSubject("head"), { callback: () => {} });
    };
    expect(await complaint(many(20))).toBe("");
    expect(await complaint(many(60))).toMatch(/PROTOCOL_ERR/);
  });
});

describe("refused subscribing", () => {
  test.each([
    ">",
    "*",
    "$KV.>",
    "$KV.weft-config.>",
    "$KV.weft-config.*",
    "$KV.weft-config.out.default.*",
    "$KV.weft-config.out.other.secret",
    "$KV.weft-config.in.default.cart",
    "$KV.weft-config.eps.default.>",
    "$KV.weft-config.eps.default.*.0",
    "$KV.weft-config.eps.default.other.0",
    "_INBOX.>",
    "_INBOX_default.cart.aaaaaaaaaa.>",
    "_INBOX_default.frontend.bbbbbbbbbb.>",
    "_INBOX_default.frontend.*.>",
    "_INBOX_controlplane.>",
    "weft.>",
    "weft.rpc.register.default.frontend.aaaaaaaaaa",
    "weft.ack.>",
    "$JS.API.>",
    "$JS.EVENT.>",
    "$SYS.>",
  ])("%s", async (subject) => {
    const refused = await violation((connection) => {
      connection.subscribe(subject, { callback: () => {} });
    });
    expect(refused).toBe("subscription");
  });
});

describe("refused connections", () => {
  async function login(credentials: NatsCredentials): Promise<string> {
    try {
      const connection = await connect({
        servers: nats.server.url,
        authenticator: authenticator(credentials),
        reconnect: false,
        timeout: 2_000,
      });
      await connection.close();
      return "connected";
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }

  test("no credentials", async () => {
    const attempt = connect({ servers: nats.server.url, reconnect: false });
    expect(await attempt.catch((error) => error.message)).toContain("Authorization Violation");
  });

  test("another mesh's operator, another's key, an altered or expired JWT", async () => {
    const good = nats.workload(me, granted);
    expect(await login(good)).toBe("connected");
    const stranger = openNatsAuthority(`${nats.folder}/keys/stranger.seed`);
    const key = createNkey("user");
    const now = Date.now();
    const user = { name: "x", publicKey: key.publicKey, expiresAt: now + 60_000 };
    const forged = { jwt: stranger.issueUser(user, now), seed: key.seed };
    const [head = "", body = "", signature = ""] = good.jwt.split(".");
    const claims = JSON.parse(Buffer.from(body, "base64url").toString());
    claims.nats.pub = {};
    const altered = Buffer.from(JSON.stringify(claims)).toString("base64url");
    for (const bad of [
      forged,
      { jwt: good.jwt, seed: key.seed },
      { jwt: `${head}.${altered}.${signature}`, seed: good.seed },
      nats.workload(me, granted, -5_000),
      { jwt: "", seed: good.seed },
    ]) {
      expect(await login(bad)).toContain("Authorization Violation");
    }
  });
});

describe("golden: the rights other versions give and rely on", () => {
  const { workload, granted: keys, inboxPrefix: prefix, publish, subscribe } = golden;

  test("the lists, and the credentials that carry them", () => {
    expect(userRights(workload, keys)).toEqual({ publish, subscribe });
    expect(inboxPrefix(workload)).toBe(prefix);
    const claims = Buffer.from(nats.workload(workload, keys).jwt.split(".")[1] ?? "", "base64url");
    expect(JSON.parse(claims.toString())).toMatchObject({
      nats: { pub: { allow: publish }, sub: { allow: subscribe } },
    });
  });

  test("the server lets their holder use every subject of them", async () => {
    const credentials = nats.workload(workload, keys);
    const refused = await violation((connection) => {
      for (const subject of publish) connection.publish(subject.replace("*", "7"), data);
      for (const subject of subscribe) connection.subscribe(subject, { callback: () => {} });
    }, credentials);
    expect(refused).toBe("allowed");
  });
});

describe("the lists", () => {
  test("only literal keys and the shards of one service are granted", () => {
    const wide = [
      "out.>",
      "out.*.cart",
      "eps.*.*.*",
      "eps.default.*",
      ">",
      "*",
      "",
      "a b",
      "in.x.*",
    ];
    const none = userRights(me, []);
    expect(userRights(me, wide)).toEqual(none);
    expect(userRights(me, ["head", "mesh"])).toEqual(none);
  });

  test("a credentials file is read, and nothing else passes for one", () => {
    const { jwt, seed } = nats.control();
    const file = `-----BEGIN NATS USER JWT-----\n${jwt}\n------END NATS USER JWT------\n
-----BEGIN USER NKEY SEED-----\n${seed}\n------END USER NKEY SEED------\n`;
    expect(parseNatsCredentials(file)).toEqual({ jwt, seed });
    expect(() => parseNatsCredentials(file.replace(seed, "SUABC"))).toThrow("no user JWT");
    expect(() => parseNatsCredentials("")).toThrow("no user JWT");
  });
});
