import { expect, test } from "bun:test";
import { checkRuntime } from "./self-test.ts";

test("the runtime that runs the tests passes", async () => {
  await checkRuntime();
});

test("one that lacks something is named with what to do", async () => {
  const { prototype } = Buffer as unknown as { prototype: Record<string, unknown> };
  const original = prototype["latin1Slice"];
  prototype["latin1Slice"] = () => "";
  try {
    await expect(checkRuntime()).rejects.toMatchObject({
      message: expect.stringContaining("text as latin1"),
      fix: expect.stringContaining("carries its own Bun"),
    });
  } finally {
    prototype["latin1Slice"] = original;
  }
});
