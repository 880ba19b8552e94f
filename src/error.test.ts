import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import processes from "../test/fixtures/contracts/process.json" with { type: "json" };
import { EXIT, REASONS } from "./error.ts";

const FIXTURE = join(import.meta.dir, "../test/fixtures/contracts/reasons.json");
const PAGE = join(import.meta.dir, "../docs/operations.md");

test("reason codes are those that other versions know", () => {
  expect(REASONS).toEqual(JSON.parse(readFileSync(FIXTURE, "utf8")));
});

test("exit codes are those that scripts know", () => {
  expect<Record<string, number>>(EXIT).toEqual(processes.exit);
});

test("reason codes are documented with their status, flag and gRPC status", () => {
  const page = readFileSync(PAGE, "utf8");
  for (const [reason, { status, flag, grpc }] of Object.entries(REASONS)) {
    expect(page).toContain(`\`${reason}\` | ${status} | ${flag} | ${grpc} |`);
  }
});
