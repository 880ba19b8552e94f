import { describe, expect, test } from "bun:test";
import { FirstBytes, type FirstBytesVerdict } from "./first-bytes.ts";

const latin1 = (text: string) => Buffer.from(text, "latin1");

/** The verdict and the number of bytes it took, one byte at a time. */
function judge(bytes: Uint8Array): { verdict: FirstBytesVerdict; after: number } {
  const first = new FirstBytes();
  for (let i = 0; i < bytes.length; i++) {
    const verdict = first.push(bytes.subarray(i, i + 1));
    if (verdict !== "more") return { verdict, after: i + 1 };
  }
  return { verdict: "more", after: bytes.length };
}

const HTTP = [
  "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
  "GET / HTTP/1.0\r\n\r\n",
  "POST /a/b?c=d%20e HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
  "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
  "PROPFIND /dav HTTP/1.1\r\nHost: a\r\n\r\n",
  "VERSION-CONTROL /x HTTP/1.1\r\nHost: a\r\n\r\n",
  "GET /\xfc HTTP/1.1\r\nHost: a\r\n\r\n",
  `GET /${"a".repeat(20_000)} HTTP/1.1\r\nHost: a\r\n\r\n`,
];

/** With the number of bytes after which it is clear. */
const OTHER: readonly (readonly [string, string, number])[] = [
  ["TLS ClientHello", "\x16\x03\x01\x02\x00\x01", 1],
  ["postgres startup", "\x00\x00\x00\x54\x00\x03\x00\x00user\x00", 1],
  ["postgres SSLRequest", "\x00\x00\x00\x08\x04\xd2\x16\x2f", 1],
  ["redis array", "*1\r\n$4\r\nPING\r\n", 1],
  ["redis inline PING", "PING\r\n", 2],
  ["redis inline GET", "GET key\r\n", 5],
  ["redis inline GET of a path", "GET /key\r\n", 9],
  ["memcached", "get /key\r\n", 1],
  ["ZooKeeper", "ruok", 1],
  ["NATS CONNECT", 'CONNECT {"verbose":false}\r\n', 3],
  ["NATS SUB", "SUB foo 1\r\n", 4],
  ["STOMP", "CONNECT\naccept-version:1.2\n\n\0", 3],
  ["SMTP", "EHLO example.org\r\n", 1],
  ["POP3 LIST", "LIST\r\n", 3],
  ["IMAP", "a1 LOGIN x y\r\n", 1],
  ["FTP", "USER x\r\n", 2],
  ["SSH", "SSH-2.0-OpenSSH_9.2\r\n", 2],
  ["MQTT", "\x10\x10\x00\x04MQTT", 1],
  ["AMQP", "AMQP\x00\x00\x09\x01", 2],
  ["Kafka", "\x00\x00\x00\x2f\x00\x12", 1],
  ["MongoDB, a length that is a letter", "P\x01\x00\x00", 2],
  ["HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 3],
  ["HTTP/0.9", "GET /\r\n", 6],
  ["HTTP/2 in a request line", "GET / HTTP/2.0\r\n\r\n", 12],
  ["RTSP", "OPTIONS rtsp://a/b RTSP/1.0\r\n", 9],
  ["SIP", "OPTIONS sip:a@b SIP/2.0\r\n", 9],
  ["CONNECT", "CONNECT a:443 HTTP/1.1\r\n\r\n", 3],
  ["absolute form", "GET http://a/ HTTP/1.1\r\n\r\n", 5],
  ["asterisk of another method", "GET * HTTP/1.1\r\n\r\n", 5],
  ["asterisk and more", "OPTIONS *x HTTP/1.1\r\n\r\n", 10],
  ["an unknown method", "FROB / HTTP/1.1\r\n\r\n", 1],
  ["a method in lower case", "get / HTTP/1.1\r\n\r\n", 1],
  ["an empty line", "\r\nGET / HTTP/1.1\r\n\r\n", 1],
  ["an answer", "HTTP/1.1 200 OK\r\n\r\n", 2],
];

describe("requests", () => {
  test.each(HTTP)("%#: http", (text) => {
    expect(judge(latin1(text)).verdict).toBe("http");
  });

  test("every shorter beginning leaves it open", () => {
    for (const text of HTTP) {
      const bytes = latin1(text);
      const { after } = judge(bytes);
      expect(new FirstBytes().push(bytes.subarray(0, after - 1))).toBe("more");
    }
  });

  test("it is decided by the version, or by 8 KiB of target", () => {
    expect(judge(latin1(HTTP[0]!)).after).toBe("GET / HTTP/1.".length);
    expect(judge(latin1(HTTP.at(-1)!)).after).toBe("GET /".length + 8 * 1024);
  });
});

describe("everything else, as soon as it is clear", () => {
  test.each(OTHER)("%s", (_, text, after) => {
    expect(judge(latin1(text))).toEqual({ verdict: "other", after });
  });
});

/** Reproducible. */
function randoms(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

describe("any bytes", () => {
  const samples = [...HTTP, ...OTHER.map(([, text]) => text)].map(latin1);

  test("cut anywhere, the verdict is the same", () => {
    for (const bytes of samples) {
      const whole = new FirstBytes().push(bytes);
      const cuts = Math.min(bytes.length, 200);
      for (let cut = 0; cut <= cuts; cut++) {
        const first = new FirstBytes();
        first.push(bytes.subarray(0, cut));
        expect(first.push(bytes.subarray(cut))).toBe(whole);
      }
    }
  });

  test("mutated and cut into pieces: the verdict is that of the bytes one by one", () => {
    const random = randoms(7);
    for (let round = 0; round < 5000; round++) {
      const bytes = Buffer.from(samples[Math.floor(random() * samples.length)]!.subarray(0, 64));
      for (let i = 0; i < 2; i++) bytes[Math.floor(random() * bytes.length)] = random() * 256;
      const first = new FirstBytes();
      let verdict: FirstBytesVerdict = "more";
      for (let at = 0; at < bytes.length; ) {
        const size = 1 + Math.floor(random() * 9);
        const now = first.push(bytes.subarray(at, at + size));
        if (verdict !== "more") expect(now).toBe(verdict);
        verdict = now;
        at += size;
      }
      expect(verdict).toBe(judge(bytes).verdict);
    }
  });
});
