/** The command line's side of the API's errors. */
import { expect, test } from "bun:test";
import type { Failure } from "../../src/error.ts";
import problems from "../../test/fixtures/contracts/problems.json" with { type: "json" };
import { createClient } from "./client.ts";

test.each(problems.cases)("golden: the problem of $path", async ({ problem, exit }) => {
  const server = Bun.serve({
    ...{ hostname: "127.0.0.1", port: 0 },
    fetch: () =>
      Response.json(problem, {
        status: problem.status,
        headers: { "content-type": problems.type },
      }),
  });
  try {
    const client = createClient({ url: server.url.origin, roots: [], ca: "" });
    const failure = await client.get<Failure>("/").catch((error: Failure) => error);
    const { code, fix, status } = problem;
    expect(failure).toMatchObject({ code, fix, status, exit, body: problem });
    expect(failure.message).toBe(problem.detail);
  } finally {
    server.stop(true);
  }
});
