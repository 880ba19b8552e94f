import { describe, expect, test } from "bun:test";
import type { RequestHead, ResponseHead } from "../message.ts";
import { RequestDecoder, ResponseDecoder } from "./decode.ts";
import {
  chunkPrefix,
  cutFields,
  encodeRequestHead,
  encodeResponseHead,
  lastChunk,
  synthesize,
  upgradeFields,
  writeLatin1,
} from "./encode.ts";

function request(text: string): RequestHead {
  const decoder = new RequestDecoder();
  decoder.push(Buffer.from(text, "latin1"));
  expect(decoder.next()).toBe("head");
  return decoder.head;
}

function response(text: string): ResponseHead {
  const decoder = new ResponseDecoder();
  decoder.expect("GET");
  decoder.push(Buffer.from(text, "latin1"));
  expect(decoder.next()).toBe("head");
  return decoder.head;
}

describe("heads", () => {
  test("without cuts and edits a head is copied", () => {
    const text = "GET /a HTTP/1.1\r\nhOsT: a\r\nX:  y \r\n\r\n";
    expect(encodeRequestHead(request(text), { add: "" })).toBe(text);
  });

  test("cut lines go, added lines come last", () => {
    const head = request(
      "GET /a HTTP/1.1\r\nConnection: X-A\r\nHost: a\r\nX-A: 1\r\nTE: trailers\r\nB: 2\r\n\r\n",
    );
    expect(encodeRequestHead(head, { add: "x-a: ours\r\n" })).toBe(
      "GET /a HTTP/1.1\r\nHost: a\r\nB: 2\r\nx-a: ours\r\n\r\n",
    );
  });

  test("target and fields replaced", () => {
    const head = request("GET http://a/x HTTP/1.1\r\nHost: a\r\nX-Old: 1\r\nx-old: 2\r\n\r\n");
    const cuts = cutFields(head, ["x-old", "host"]);
    expect(encodeRequestHead(head, { target: "/x", cuts, add: "host: b\r\n" })).toBe(
      "GET /x HTTP/1.1\r\nhost: b\r\n\r\n",
    );
    expect(cutFields(head, [])).toBe(head.cuts);
  });

  test("a field cut already is not cut twice", () => {
    const head = request("GET / HTTP/1.1\r\nHost: a\r\nTE: x\r\nA: 1\r\n\r\n");
    const cuts = cutFields(head, ["te", "a"]);
    expect(encodeRequestHead(head, { cuts, add: "" })).toBe("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  });

  test("HTTP/1.0 becomes HTTP/1.1", () => {
    const head = request("GET /a HTTP/1.0\r\nHost: a\r\n\r\n");
    expect(encodeRequestHead(head, { add: "" })).toBe("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    const answer = response("HTTP/1.0 404 Not here\r\nContent-Length: 0\r\n\r\n");
    expect(encodeResponseHead(answer, { add: "" })).toBe(
      "HTTP/1.1 404 Not here\r\nContent-Length: 0\r\n\r\n",
    );
  });

  test("bytes above ASCII survive", () => {
    const bytes = Buffer.from("GET / HTTP/1.1\r\nHost: a\r\nX: caf\xe9\xff\r\n\r\n", "latin1");
    const head = request(bytes.toString("latin1"));
    expect(writeLatin1(encodeRequestHead(head, { add: "" })).equals(bytes)).toBe(true);
  });

  test("an upgrade is passed on by name", () => {
    const text =
      "HTTP/1.1 200 OK\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 0\r\n\r\n";
    const head = response(text);
    expect(encodeResponseHead(head, { add: upgradeFields(head.upgrade ?? "") })).toBe(
      "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    );
  });
});

describe("bodies and answers of our own", () => {
  test("chunks", () => {
    expect(chunkPrefix(255)).toBe("ff\r\n");
    expect(lastChunk("")).toBe("0\r\n\r\n");
    expect(lastChunk("A: b\r\n")).toBe("0\r\nA: b\r\n\r\n");
  });

  test("an answer counts bytes, not characters", () => {
    expect(synthesize(503, "weft-reason: draining\r\n", "é").toString()).toBe(
      "HTTP/1.1 503 Service Unavailable\r\nweft-reason: draining\r\ncontent-length: 2\r\n\r\né",
    );
    expect(synthesize(404, "", "gone", true).toString()).toBe(
      "HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\n",
    );
  });
});
