import { describe, expect, test } from "bun:test";
import { RequestDecoder, ResponseDecoder } from "./decode.ts";
import { everyByte, pieces, readRequests, readResponses } from "./events.cases.ts";
import { ACCEPTED, REFUSED } from "./request.cases.ts";

function decode(text: string): RequestDecoder {
  const decoder = new RequestDecoder();
  decoder.push(Buffer.from(text, "latin1"));
  expect(decoder.next()).toBe("head");
  return decoder;
}

function answer(text: string, method = "GET", upgrade = false): ResponseDecoder {
  const decoder = new ResponseDecoder();
  decoder.expect(method, upgrade);
  decoder.push(Buffer.from(text, "latin1"));
  return decoder;
}

function events(decoder: { next(): string }): string[] {
  const seen: string[] = [];
  for (;;) {
    const event = decoder.next();
    seen.push(event);
    if (event === "more" || event === "error" || seen.length > 100) return seen;
  }
}

describe("requests refused", () => {
  test.each(REFUSED)("%s: %d", (_name, status, bytes) => {
    expect(readRequests(pieces(bytes, [])).refused).toBe(status);
  });
});

describe("requests accepted", () => {
  test.each(ACCEPTED)("%s", (_name, bytes) => {
    const transcript = readRequests(pieces(bytes, []));
    expect(transcript.refused).toBeUndefined();
    expect(transcript.bodies).toHaveLength(transcript.heads.length);
    expect(transcript.heads.length).toBeGreaterThan(0);
  });
});

describe("RFC 9110, 5.6.2 and 5.5: each byte, where it may stand", () => {
  const TOKEN = /[!#$%&'*+\-.^_`|~0-9A-Za-z]/;
  const NAME_AND_COLON = /[:!#$%&'*+\-.^_`|~0-9A-Za-z]/;
  const ALL = Array.from({ length: 256 }, (_, code) => String.fromCharCode(code));
  const allowed = (head: (char: string) => string) =>
    ALL.filter((char) => readRequests(pieces(head(char), [])).refused === undefined);
  const answered = (head: (char: string) => string) =>
    ALL.filter((char) => readResponses(pieces(head(char), [])).refused === undefined);

  test.each([
    ["a method", TOKEN, (char: string) => `G${char}T / HTTP/1.1\r\nHost: a\r\n\r\n`],
    [
      "a field name",
      NAME_AND_COLON,
      (char: string) => `GET / HTTP/1.1\r\nHost: a\r\nX${char}Y: z\r\n\r\n`,
    ],
    [
      "a field value",
      /[\t\x20-\x7e\x80-\xff]/,
      (char: string) => `GET / HTTP/1.1\r\nHost: a\r\nX: y${char}z\r\n\r\n`,
    ],
    ["a target", /[!-"$-~]/, (char: string) => `GET /a${char}b HTTP/1.1\r\nHost: a\r\n\r\n`],
    ["Host", /[a-zA-Z0-9\-._~]/, (char: string) => `GET / HTTP/1.1\r\nHost: a${char}b\r\n\r\n`],
    [
      "Content-Length",
      /[0-9]/,
      (char: string) => `GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0${char}0\r\n\r\n`,
    ],
    ["the version", /[1]/, (char: string) => `GET / HTTP/${char}.1\r\nHost: a\r\n\r\n`],
    [
      "a chunk's size, and before its extension",
      /[0-9a-fA-F;]/,
      (char: string) =>
        `POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0${char}1;a\r\n`,
    ],
  ])("in %s", (_where, allowedIn, head) => {
    expect(allowed(head)).toEqual(ALL.filter((char) => allowedIn.test(char)));
  });

  test.each([
    ["a phrase", /[\t\x20-\x7e\x80-\xff]/, (char: string) => `HTTP/1.1 200 a${char}b\r\n\r\n`],
    ["a status", /[0-9]/, (char: string) => `HTTP/1.1 2${char}0 OK\r\n\r\n`],
    [
      "a field value of an answer",
      /[\t\x20-\x7e\x80-\xff]/,
      (char: string) => `HTTP/1.1 200 OK\r\nX: y${char}z\r\n\r\n`,
    ],
  ])("in %s", (_where, allowedIn, head) => {
    expect(answered(head)).toEqual(ALL.filter((char) => allowedIn.test(char)));
  });
});

describe("cut at every byte, the events stay the same", () => {
  const all = [...REFUSED.map(([name, , bytes]) => [name, bytes] as const), ...ACCEPTED];
  test.each(all.filter(([, bytes]) => bytes.length < 1000))("%s", (_name, bytes) => {
    const whole = readRequests(pieces(bytes, []));
    expect(readRequests(everyByte(bytes))).toEqual(whole);
    for (let at = 1; at < bytes.length; at++) {
      expect(readRequests(pieces(bytes, [at]))).toEqual(whole);
    }
  });
});

describe("request heads", () => {
  test("what the rest of the proxy sees", () => {
    const { head } = decode(
      "POST /a?b HTTP/1.1\r\nHost: Cart.Default:80\r\nX-Request-ID:  r1 \r\n" +
        "traceparent: 00-x\r\nExpect: 100-Continue\r\nContent-Length: 7\r\nA: 1\r\na: 2\r\n\r\n",
    );
    expect(head.method).toBe("POST");
    expect(head.target).toBe("/a?b");
    expect(head.authority).toBe("cart.default:80");
    expect([head.requestId, head.traceparent]).toEqual(["r1", "00-x"]);
    expect([head.minor, head.contentLength, head.chunked]).toEqual([1, 7, false]);
    expect([head.keepAlive, head.expectContinue]).toEqual([true, true]);
    expect(head.field("a")).toBe("1");
    expect(head.field("x-request-id")).toBe("r1");
    expect(head.field("absent")).toBeUndefined();
    expect(head.fields().map((field) => field.name)).toContain("traceparent");
    expect(head.cuts).toEqual([]);
  });

  test("names that objects inherit are fields like any other", () => {
    const { head } = decode("GET / HTTP/1.1\r\nHost: a\r\n__proto__: 1\r\n\r\n");
    expect(head.field("__proto__")).toBe("1");
    expect(head.field("constructor")).toBeUndefined();
  });

  test("hop-by-hop, nominated and mesh fields are cut", () => {
    const { head } = decode(
      "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Hop , x-request-id\r\nX-Hop: 1\r\n" +
        "Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\n" +
        "HTTP2-Settings: AAA\r\nWeft-Reason: denied\r\nX-Request-Id: 1\r\nX-Kept: 2\r\n\r\n",
    );
    let kept = head.text;
    for (let i = head.cuts.length - 2; i >= 0; i -= 2) {
      kept = kept.slice(0, head.cuts[i]) + kept.slice(head.cuts[i + 1]);
    }
    expect(kept).toBe("GET / HTTP/1.1\r\nHost: a\r\nX-Kept: 2\r\n\r\n");
    expect(head.requestId).toBeUndefined();
    expect(head.keepAlive).toBe(false);
  });

  test("an upgrade counts where Connection nominates it, h2c never", () => {
    const upgrade = (fields: string) => decode(`GET / HTTP/1.1\r\nHost: a\r\n${fields}\r\n`).head;
    expect(upgrade("Connection: Upgrade\r\nUpgrade: websocket\r\n").upgrade).toBe("websocket");
    expect(upgrade("Upgrade: websocket\r\n").upgrade).toBeUndefined();
    const h2c = upgrade("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n");
    expect(h2c.upgrade).toBeUndefined();
    expect(h2c.cuts).toHaveLength(4);
    const two = "Connection: Upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n";
    expect(upgrade(two).upgrade).toBeUndefined();
    expect(upgrade("Connection: Upgrade\r\nUpgrade: websocket, H2C\r\n").upgrade).toBeUndefined();
  });

  test("connections of HTTP/1.0 end unless it is asked otherwise", () => {
    expect(decode("GET / HTTP/1.0\r\n\r\n").head.keepAlive).toBe(false);
    expect(decode("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").head.keepAlive).toBe(true);
  });

  test("bytes behind an upgrade wait until they are taken", () => {
    const decoder = decode(
      "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nab",
    );
    expect(decoder.next()).toBe("end");
    expect(decoder.buffered).toBe(2);
    expect(Buffer.from(decoder.takeBuffered()).toString()).toBe("ab");
    expect(decoder.buffered).toBe(0);
  });

  test("a pipelined request waits for the call after end", () => {
    const get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const decoder = decode(get + get);
    expect(decoder.next()).toBe("end");
    expect(decoder.buffered).toBe(get.length);
    expect(events(decoder)).toEqual(["head", "end", "more"]);
  });

  test("idle is what holds not even a part of a request", () => {
    const decoder = new RequestDecoder();
    expect(decoder.idle).toBe(true);
    decoder.push(Buffer.from("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"));
    expect([decoder.next(), decoder.idle]).toEqual(["more", false]);
    decoder.push(Buffer.from("\r\n"));
    expect([decoder.next(), decoder.idle]).toEqual(["head", false]);
    decoder.push(Buffer.from("x"));
    expect([decoder.next(), decoder.next(), decoder.idle]).toEqual(["body", "end", true]);
  });

  test("trailers pass without those that mean something in a head", () => {
    const decoder = decode(
      "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nGrpc-Status: 0\r\n" +
        "Content-Length: 5\r\nAuthorization: x\r\nCookie: y\r\nweft-reason: z\r\nX-Sum: 1\r\n\r\n" +
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    expect(decoder.next()).toBe("end");
    expect(decoder.trailers).toBe("Grpc-Status: 0\r\nX-Sum: 1\r\n");
    expect(events(decoder)).toEqual(["head", "end", "more"]);
    expect(decoder.trailers).toBe("");
  });

  test("bytes handed out are not overwritten by those that follow", () => {
    const decoder = decode("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4");
    const bodies: Uint8Array[] = [];
    for (const piece of ["\r\nab", "cd\r\n4\r\n", "ef", "gh\r\n0\r\n\r\n"]) {
      decoder.push(Buffer.from(piece));
      while (decoder.next() === "body") bodies.push(decoder.body);
    }
    expect(Buffer.concat(bodies).toString()).toBe("abcdefgh");
  });
});

const CHUNKED = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

describe("responses refused", () => {
  test.each([
    ["CL and TE", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"],
    ["differing CL", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"],
    ["another coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"],
    ["TE in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"],
    ["version", "HTTP/2.0 200 OK\r\n\r\n"],
    ["status of two digits", "HTTP/1.1 20 OK\r\n\r\n"],
    ["status of four digits", "HTTP/1.1 2000 OK\r\n\r\n"],
    ["status below 100", "HTTP/1.1 099 OK\r\n\r\n"],
    ["two spaces before the status", "HTTP/1.1  200 OK\r\n\r\n"],
    ["control byte in the phrase", "HTTP/1.1 200 O\x01K\r\n\r\n"],
    ["bare LF", "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n"],
    ["NUL in a value", "HTTP/1.1 200 OK\r\nA: \x00\r\n\r\n"],
    ["folded", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n"],
    ["space before the colon", "HTTP/1.1 200 OK\r\nA : b\r\n\r\n"],
    ["chunk size", `${CHUNKED}5x\r\n`],
    ["chunk terminator", `${CHUNKED}1\r\nabc`],
    ["204 with a length", "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc"],
    ["switch unasked", "HTTP/1.1 101 Switching Protocols\r\n\r\n"],
    ["11 interim answers", "HTTP/1.1 100 Continue\r\n\r\n".repeat(11)],
    ["endless head", `HTTP/1.1 200 OK\r\nA: ${"b".repeat(62_000)}\r\n\r\n`],
  ])("%s", (_name, bytes) => {
    const decoder = answer(bytes);
    expect(events(decoder).at(-1)).toBe("error");
    expect(decoder.error.reason).toBe("upstream_invalid");
    expect(decoder.error.status).toBe(502);
    if (bytes.length < 1000) expect(readResponses(everyByte(bytes)).refused).toBe(502);
  });
});

describe("responses", () => {
  test("lengths, chunks, and none at all", () => {
    const text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    const whole = readResponses(pieces(text, []));
    expect(whole.bodies).toEqual(["hi"]);
    expect(readResponses(everyByte(text))).toEqual(whole);
    const chunks = `${CHUNKED}2\r\nhi\r\n0\r\nA: b\r\n\r\n`;
    expect(readResponses(everyByte(chunks)).trailers).toEqual(["A: b\r\n"]);
    expect(readResponses(everyByte(chunks)).bodies).toEqual(["hi"]);
    expect(events(answer("HTTP/1.1 204 No Content\r\n\r\n"))).toEqual(["head", "end", "more"]);
    const head = answer("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "HEAD");
    expect(events(head)).toEqual(["head", "end", "more"]);
    const notModified = answer("HTTP/1.1 304 X\r\nContent-Length: 9\r\n\r\n");
    expect(events(notModified)).toEqual(["head", "end", "more"]);
    expect(notModified.head.keepAlive).toBe(true);
  });

  test("a body that lasts until the peer closes", () => {
    const decoder = answer("HTTP/1.1 200 OK\r\n\r\nabc");
    expect(events(decoder)).toEqual(["head", "body", "more"]);
    expect(decoder.untilClose).toBe(true);
    expect(decoder.head.keepAlive).toBe(false);
    expect(decoder.finish()).toBe("end");
    expect(decoder.finish()).toBe("more");
  });

  test("a peer that closes too early", () => {
    for (const text of [
      "",
      "HTTP/1.1 2",
      "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na",
      CHUNKED,
    ]) {
      const decoder = answer(text);
      events(decoder);
      expect(decoder.finish()).toBe("error");
      expect(decoder.error.reason).toBe("upstream_reset");
    }
  });

  test("interim answers come before the final one", () => {
    const decoder = answer(
      "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
    );
    expect(decoder.next()).toBe("head");
    expect(decoder.head.status).toBe(103);
    expect(decoder.next()).toBe("head");
    expect([decoder.head.status, decoder.head.statusText]).toEqual([200, ""]);
    expect(events(decoder)).toEqual(["end", "more"]);
  });

  test("a switch that was asked for leaves the rest to its taker", () => {
    const text = "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nframe";
    const decoder = answer(text, "GET", true);
    expect([decoder.next(), decoder.next()]).toEqual(["head", "end"]);
    expect(decoder.head.upgrade).toBe("websocket");
    expect(Buffer.from(decoder.takeBuffered()).toString()).toBe("frame");
    const tunnel = answer("HTTP/1.1 200 OK\r\n\r\nbytes", "CONNECT");
    expect([tunnel.next(), tunnel.next()]).toEqual(["head", "end"]);
    expect(tunnel.buffered).toBe(5);
  });

  test("bytes that no request asked for are an error", () => {
    const text = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    const decoder = answer(text + text);
    expect(events(decoder)).toEqual(["head", "end", "error"]);
    const idle = new ResponseDecoder();
    expect(idle.next()).toBe("more");
    idle.push(Buffer.from("x"));
    expect(idle.next()).toBe("error");
  });

  test("the same text means another body after another method", () => {
    const text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
    const decoder = answer(`${text}hi`);
    expect(events(decoder)).toEqual(["head", "body", "end", "more"]);
    decoder.expect("HEAD");
    decoder.push(Buffer.from(text));
    expect(events(decoder)).toEqual(["head", "end", "more"]);
    decoder.expect("GET");
    decoder.push(Buffer.from(`${text}ho`));
    expect(events(decoder)).toEqual(["head", "body", "end", "more"]);
  });

  test("what a peer proxy and a keep-alive say", () => {
    const decoder = answer(
      "HTTP/1.1 503 X\r\nweft-reason: app_unreachable\r\nKeep-Alive: timeout=4, max=100\r\n" +
        "Content-Length: 0\r\n\r\n",
    );
    decoder.next();
    expect(decoder.head.reason).toBe("app_unreachable");
    expect(decoder.head.keepAliveTimeout).toBe(4);
    expect(decoder.head.cuts).toHaveLength(4);
  });
});
