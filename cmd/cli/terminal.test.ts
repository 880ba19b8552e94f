import { expect, test } from "bun:test";
import { EXIT, Failure } from "../../src/error.ts";
import { explain } from "./terminal.ts";

function told(error: unknown): string {
  let text = "";
  const terminal = {
    out: () => true,
    err: (part: string) => {
      text += part;
    },
    ...{ outWatched: false, errWatched: false, colours: false, columns: 80 },
    stdin: async () => "",
    now: () => 0,
    sleep: async () => {},
  };
  explain(terminal, error);
  return text;
}

test("an error comes with its next step, and without a stack", () => {
  expect(told(new Failure("x", "it broke", "mend it", { exit: EXIT.failed }))).toBe(
    "error: it broke\n  fix: mend it\n",
  );
  expect(told(new Error("first\n    at second"))).toBe("error: first\n");
});

test("a full disk is explained wherever a write met it", () => {
  const full = Object.assign(new Error("ENOSPC: no space left on device, write"), {
    code: "ENOSPC",
  });
  expect(told(full)).toContain("fix: free space on the disk of the data folder");
});
