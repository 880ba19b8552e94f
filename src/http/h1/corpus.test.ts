import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { RequestDecoder, ResponseDecoder } from "./decode.ts";

/** The parser fixtures of llhttp (MIT), kept outside the tree. */
const ROOT = Bun.env["WEFT_CORPORA"] ?? join(import.meta.dir, "../../../../shared/corpora");
const FILE = join(ROOT, "llhttp-fixtures/cases.json");

interface Case {
  readonly meta: { readonly type: string } | null;
  readonly raw_b64: string;
  readonly error: readonly string[];
}

function cases(type: string): Case[] {
  const all: Case[] = JSON.parse(readFileSync(FILE, "utf8"));
  return all.filter((one) => one.meta?.type === type);
}

/** The fixtures' own parser does not ask for Host: messages without one get the one they imply. */
function withHost(bytes: Uint8Array): Buffer {
  const text = Buffer.from(bytes).toString("latin1");
  if (/\r\nHost *:/i.test(text)) return Buffer.from(bytes);
  const line = /^([A-Z-]+ (?:[a-z]+:\/\/)?([^ ]*) HTTP\/1\.1\r\n)/gm;
  const completed = text.replace(line, (start: string, _line: string, rest: string) => {
    const authority = /^[^/?]+/.exec(rest)?.[0];
    return `${start}Host: ${authority ?? "fixture"}\r\n`;
  });
  return Buffer.from(completed, "latin1");
}

/** Why a request is refused. Fixtures that stop at the fault get the end of a head. */
function refusesRequest(bytes: Uint8Array, mustError: boolean): string | undefined {
  const decoder = new RequestDecoder();
  decoder.push(withHost(bytes));
  let ended = false;
  for (;;) {
    const event = decoder.next();
    if (event === "error") return decoder.error.message;
    if (event === "more") {
      if (ended || !mustError || decoder.buffered === 0) return undefined;
      ended = true;
      decoder.push(Buffer.from("\r\n\r\n"));
    }
    if (event === "head" && (decoder.head.upgrade || decoder.head.method === "CONNECT")) {
      return undefined;
    }
  }
}

function refusesResponse(bytes: Uint8Array): string | undefined {
  const decoder = new ResponseDecoder();
  decoder.push(bytes);
  decoder.expect("GET", true);
  for (;;) {
    const event = decoder.next();
    if (event === "error") return decoder.error.message;
    if (event === "more") return undefined;
    if (event !== "end") continue;
    if (decoder.head.status === 101 || decoder.buffered === 0) return undefined;
    decoder.expect("GET", true);
  }
}

/** Splits the corpus by what its own parser says, and counts where we say the same. */
function tally(
  type: string,
  refuses: (bytes: Uint8Array, mustError: boolean) => string | undefined,
) {
  const result = { mustError: 0, refused: 0, mustAccept: 0, accepted: 0 };
  for (const one of cases(type)) {
    const why = refuses(Buffer.from(one.raw_b64, "base64"), one.error.length > 0);
    if (one.error.length > 0) {
      result.mustError++;
      if (why !== undefined) result.refused++;
    } else {
      result.mustAccept++;
      if (why === undefined) result.accepted++;
    }
  }
  return result;
}

function shown({ refused, mustError, accepted, mustAccept }: ReturnType<typeof tally>): string {
  return `${refused} of ${mustError} refused, ${accepted} of ${mustAccept} accepted`;
}

const absent = !existsSync(FILE);

describe.skipIf(absent)(`llhttp corpus${absent ? ` (not found: ${FILE})` : ""}`, () => {
  // What differs is by intent: 8 fixtures "fail" with a pause at an upgrade, two with a method
  // unknown to that parser; and we refuse RTSP, ICE, HTTP/0.9, fragments and other codings.
  test("requests", () => {
    const result = tally("request", refusesRequest);
    console.log(`llhttp requests: ${shown(result)}`);
    expect(result.mustError).toBe(65);
    expect(result.refused).toBeGreaterThanOrEqual(55);
    expect(result.accepted).toBeGreaterThanOrEqual(52);
  });

  test("responses", () => {
    const result = tally("response", refusesResponse);
    console.log(`llhttp responses: ${shown(result)}`);
    expect(result.mustAccept + result.mustError).toBe(76);
    expect(result.refused).toBeGreaterThanOrEqual(21);
    expect(result.accepted).toBeGreaterThanOrEqual(39);
  });
});
