import { expect, test } from "bun:test";
import { printIssues } from "./issues.ts";
import type { Terminal } from "./terminal.ts";

const issue = {
  source: "mesh.yaml",
  line: 2,
  column: 9,
  path: "spec.ports[0].port",
  value: "99999",
  reason: "is not a port",
  fix: "use 1 to 65535",
  code: "invalid_port",
};

function printed(errWatched: boolean): string {
  let text = "";
  const terminal: Terminal = {
    out: () => true,
    err: (part) => {
      text += part;
    },
    ...{ outWatched: false, errWatched, colours: false, columns: 80 },
    stdin: async () => "",
    now: () => 0,
    sleep: async () => {},
  };
  printIssues(terminal, [issue], [{ name: "mesh.yaml", text: "a: 1\n\tport: 99999\n" }]);
  return text;
}

test("a machine gets one line per problem", () => {
  expect(printed(false)).toBe(
    "mesh.yaml:2:9: spec.ports[0].port: is not a port (99999) — use 1 to 65535\n" +
      "error: 1 problem; nothing was changed\n",
  );
});

test("a person also sees the line, with a caret under the place", () => {
  expect(printed(true).split("\n").slice(1, 3)).toEqual([
    "    2 |  port: 99999",
    "      |         ^",
  ]);
});
