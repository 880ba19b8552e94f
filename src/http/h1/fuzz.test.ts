import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { RequestDecoder } from "./decode.ts";
import { encodeRequestHead } from "./encode.ts";
import { pieces, readRequests, readResponses } from "./events.cases.ts";
import { ACCEPTED, REFUSED } from "./request.cases.ts";

/** Messages of each kind. */
const RUNS = process.env["WEFT_LONG"] === "1" ? 500_000 : 2000;

const SEEDS = [
  ...ACCEPTED.map(([, bytes]) => bytes),
  ...REFUSED.map(([, , bytes]) => bytes),
].filter((bytes) => bytes.length < 2000);

const RESPONSES = [
  "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nA: b\r\n\r\n",
  "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 404 Not Found\r\nConnection: keep-alive\r\n\r\nbody",
  "HTTP/1.1 204 No Content\r\nConnection: X\r\nX: y\r\n\r\n",
];

/** Replace, insert or delete at a place given as a fraction of the length. */
interface Mutation {
  readonly at: number;
  readonly remove: number;
  readonly insert: string;
}

const PARTS = [
  "\r",
  "\n",
  "\r\n",
  "\0",
  " ",
  "\t",
  ":",
  ",",
  ";",
  "chunked",
  "0",
  "f",
  "\xff",
  '"',
];
const LINES = [
  "Host: b\r\n",
  "Content-Length: 3\r\n",
  "Transfer-Encoding: chunked\r\n",
  "A: b\r\n",
];

const mutation: fc.Arbitrary<Mutation> = fc.record({
  at: fc.double({ min: 0, max: 1, noNaN: true }),
  remove: fc.nat(3),
  insert: fc.constantFrom("", ...PARTS, ...LINES),
});

function mutate(seed: string, mutations: readonly Mutation[]): string {
  let text = seed;
  for (const { at, remove, insert } of mutations) {
    const offset = Math.floor(at * text.length);
    text = text.slice(0, offset) + insert + text.slice(offset + remove);
  }
  return text;
}

function mutated(seeds: readonly string[]): fc.Arbitrary<string> {
  return fc
    .tuple(fc.constantFrom(...seeds), fc.array(mutation, { maxLength: 4 }))
    .map(([seed, mutations]) => mutate(seed, mutations));
}

function cutsOf(text: string, fractions: readonly number[]): number[] {
  return fractions.map((part) => Math.floor(part * text.length)).sort((a, b) => a - b);
}

const fractions = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 5 });

describe("mutated messages", () => {
  test("requests: no throw, no hang, the same events however they are cut", () => {
    fc.assert(
      fc.property(mutated(SEEDS), fractions, (text, parts) => {
        const whole = readRequests(pieces(text, []));
        expect(readRequests(pieces(text, cutsOf(text, parts)))).toEqual(whole);
      }),
      { numRuns: RUNS },
    );
  });

  test("responses: no throw, no hang, the same events however they are cut", () => {
    fc.assert(
      fc.property(
        mutated(RESPONSES),
        fractions,
        fc.constantFrom("GET", "HEAD"),
        (text, parts, m) => {
          const whole = readResponses(pieces(text, []), m);
          expect(readResponses(pieces(text, cutsOf(text, parts)), m)).toEqual(whole);
        },
      ),
      { numRuns: RUNS },
    );
  });

  test("an accepted head, encoded again, is accepted and says the same", () => {
    fc.assert(
      fc.property(mutated(SEEDS), (text) => {
        const first = new RequestDecoder();
        first.push(Buffer.from(text, "latin1"));
        if (first.next() !== "head") return;
        const { head } = first;
        if (head.authority === "" || head.chunked) return;
        const again = new RequestDecoder();
        const host = head.minor === 0 && head.field("host") === undefined;
        const add = host ? `host: ${head.authority}\r\n` : "";
        again.push(Buffer.from(encodeRequestHead(head, { add }), "latin1"));
        expect(again.next()).toBe("head");
        expect(again.head.method).toBe(head.method);
        expect(again.head.target).toBe(head.target);
        expect(again.head.authority).toBe(head.authority);
        expect(again.head.contentLength).toBe(head.contentLength);
        expect(again.head.cuts).toEqual([]);
      }),
      { numRuns: RUNS },
    );
  });

  test("random bytes are refused or waited for", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        const transcript = readRequests([bytes]);
        expect(transcript.heads).toEqual([]);
        readResponses([bytes]);
      }),
      { numRuns: RUNS },
    );
  });
});
