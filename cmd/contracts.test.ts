/** What is written on command lines: read as given, and written again by `weft up` for its children. */
import { expect, test } from "bun:test";
import golden from "../test/fixtures/contracts/addressing.json" with { type: "json" };
import { readAppPorts, readUpstream } from "./grammar.ts";
import { planProcesses } from "./up/plan.ts";

/** What `weft up` puts on the line of a sidecar for this Process. */
function line(app: string, upstream: string) {
  const spec = { command: ["run"], service: "s", app: [app], upstreams: [upstream] };
  const metadata = { name: "s", namespace: "default", labels: {} };
  const process = { apiVersion: "weft.dev/v1", kind: "Process", metadata, spec } as const;
  const around = { portBase: 17_000, data: "/d", freePort: () => 0 };
  return planProcesses({ processes: [process], ...around }).proxies[0]?.workloads[0];
}

test.each(Object.entries(golden.apps))("golden: --app %s", (text, meaning) => {
  expect<readonly object[]>(readAppPorts([text], "--app")).toEqual([meaning]);
  const again = line(text, "db:1")?.app ?? [];
  expect<readonly object[]>(readAppPorts(again, "--app")).toEqual([meaning]);
});

test.each(Object.entries(golden.upstreams))("golden: --upstream %s", (text, meaning) => {
  expect<object>(readUpstream(text, "--upstream")).toEqual(meaning);
  expect(line("80", text)?.upstream).toEqual([text]);
});
