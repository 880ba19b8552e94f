/** The command line's side of an apply. */
import { expect, test } from "bun:test";
import golden from "../../test/fixtures/contracts/apply.json" with { type: "json" };
import { apply } from "./apply.ts";
import type { Client } from "./client.ts";
import type { Session } from "./session.ts";

test.each(golden.steps)("golden: an apply of $name", async ({ request, answer, out, err }) => {
  const printed = { out: "", err: "" };
  const sent: unknown[] = [];
  const [source] = request.sources;
  const terminal = {
    ...{ outWatched: false, errWatched: false, colours: false, columns: 100 },
    ...{ now: () => 0, sleep: async () => {}, stdin: async () => source?.text ?? "" },
    out: (text: string) => {
      printed.out += text;
      return true;
    },
    err: (text: string) => {
      printed.err += text;
    },
  };
  const post = async (path: string, body: unknown) => {
    sent.push([path, body]);
    return answer;
  };
  const client = { post } as unknown as Client;
  const session: Session = {
    ...{ terminal, env: {}, settings: {}, namespace: "default", client: async () => client },
  };
  const { dryRun } = request;
  const message = "message" in request ? { message: request.message } : {};
  expect(await apply(session, { file: ["-"], dryRun, ...message })).toBe(0);
  expect(sent).toEqual([["/v1/apply", { ...request, sources: [{ ...source, name: "-" }] }]]);
  expect(printed).toEqual({ out, err });
});
