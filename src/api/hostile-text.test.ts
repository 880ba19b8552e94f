/**
 * Regular expression denial of service: texts that make a backtracking engine go over them again
 * and again. One that takes seconds holds up the control plane: this test ends in time, or fails.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { type ApiFixture, type AskOptions, startApi } from "./api.fixture.ts";

let api: ApiFixture;

beforeAll(async () => {
  api = await startApi();
});

afterAll(() => api.close());

const PIECES = [
  "a",
  ".",
  "a.",
  " ",
  ",",
  ";",
  "=",
  "/",
  "%2f",
  ":",
  ":1",
  "-",
  "0",
  "(",
  "1h",
].concat(
  ...["- ", "[", "{", "a: ", "\n", "'", "&a ", "*a ", "-----BEGIN CERTIFICATE REQUEST-----"],
);

const inHead = PIECES.filter((piece) => piece !== "\n").map((piece) => filled(piece, 59 * 1024));
const inBody = PIECES.map((piece) => filled(piece, 1024 * 1024));

function filled(piece: string, length: number): string {
  return `${piece.repeat(length / piece.length)}x`;
}

const asked: readonly (readonly [string, AskOptions])[] = [
  ...inHead.flatMap((text): (readonly [string, AskOptions])[] => {
    const path = encodeURIComponent(text);
    return [
      [`/v1/resources/Service/default/${path}`, {}],
      [`/v1/${path}`, {}],
      [`/v1/tokens?cursor=${path}`, {}],
      [`/v1/tokens?${path}`, {}],
      ["/v1/status", { token: text }],
      ["/v1/status", { token: "", headers: { authorization: `Bearer${text}` } }],
      ["/v1/apply", { body: "{}", headers: { "content-type": `application/json${text}` } }],
    ];
  }),
  ...inBody.flatMap((text): (readonly [string, AskOptions])[] => [
    ["/v1/apply", { body: text }],
    ["/v1/apply", { body: { sources: [{ name: "a.yaml", text }] } }],
    ["/v1/apply", { body: { sources: [{ name: text.slice(0, 60_000), text: "a: b" }] } }],
    ["/v1/join", { token: "", body: { csr: text, token: text } }],
  ]),
];

test(`${asked.length} requests with hostile texts are refused`, async () => {
  for (const [path, options] of asked) {
    const { status } = await api.ask(path, options);
    expect([path.slice(0, 40), Math.floor(status / 100)]).toEqual([path.slice(0, 40), 4]);
  }
});
