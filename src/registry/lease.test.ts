import { expect, test } from "bun:test";
import { type Lapse, LEASE_MS, type Lease, SUSPECT_MS, sweepLeases } from "./lease.ts";

const now = 1_000_000;
const alive = (id: string, service = "a/b"): Lease => ({
  id,
  service,
  until: now + 1,
  suspectAt: undefined,
});
const silent = (id: string, suspectAt?: number, service = "a/b"): Lease => ({
  id,
  service,
  until: now,
  suspectAt,
});

const rows: readonly (readonly [
  name: string,
  leases: readonly Lease[],
  lapsed: readonly Lapse[],
  remove: readonly string[],
  suspect: readonly string[],
])[] = [
  ["nobody is silent", [alive("1"), alive("2")], [], [], []],
  ["one of three", [silent("1"), alive("2"), alive("3")], [], ["1"], []],
  ["the only one", [silent("1")], [], ["1"], []],
  ["one of two", [silent("1"), alive("2")], [], ["1"], []],
  ["both of two", [silent("1"), silent("2")], [], [], ["1", "2"]],
  ["two of four are half", [silent("1"), silent("2"), alive("3"), alive("4")], [], ["1", "2"], []],
  ["two of three", [silent("1"), silent("2"), alive("3")], [], [], ["1", "2"]],
  [
    "one of two, after another went within this lease",
    [silent("1"), alive("2")],
    [{ service: "a/b", at: now - 1_000 }],
    [],
    ["1"],
  ],
  [
    "one of two, after another went long ago",
    [silent("1"), alive("2")],
    [{ service: "a/b", at: now - LEASE_MS }],
    ["1"],
    [],
  ],
  [
    "services are counted apart",
    [silent("1"), silent("2", undefined, "a/c"), alive("3", "a/c"), alive("4")],
    [],
    ["1", "2"],
    [],
  ],
  ["a suspect is kept", [silent("1", now - 1000), silent("2", now - 1000)], [], [], []],
  ["a suspect is not kept for ever", [silent("1", now - SUSPECT_MS)], [], ["1"], []],
];

for (const [name, leases, lapsed, remove, suspect] of rows) {
  test(name, () => expect(sweepLeases(leases, lapsed, now)).toEqual({ remove, suspect }));
}
