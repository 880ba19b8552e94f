import { expect, test } from "bun:test";
import { parseSources } from "./parse.ts";
import { portMtls } from "./port-mtls.ts";

type Mode = "STRICT" | "PERMISSIVE";

const mesh = (mode: Mode) =>
  `apiVersion: weft.dev/v1\nkind: Mesh\nmetadata: { name: mesh }\nspec: { mtls: { mode: ${mode} } }\n---\n`;

const auth = (name: string, target: string, mode: Mode) => `apiVersion: weft.dev/v1
kind: PeerAuth
metadata: { name: ${name}, namespace: shop }
spec: { ${target === "" ? "" : `target: ${target}, `}mtls: { mode: ${mode} } }
---
`;

const LEVELS = {
  "Mesh/mesh": mesh,
  "PeerAuth/shop/namespace": (mode: Mode) => auth("namespace", "", mode),
  "PeerAuth/shop/service": (mode: Mode) => auth("service", "{ service: cart }", mode),
  "PeerAuth/shop/port": (mode: Mode) => auth("port", "{ service: cart, port: 80 }", mode),
} as const;

function modesOf(text: string) {
  const { resources, issues } = parseSources([{ name: "f", text }]);
  expect(issues).toEqual([]);
  return portMtls(resources.map(({ resource }) => resource));
}

/** Every choice of nothing, STRICT or PERMISSIVE at each of the four levels. */
function choices(): (Mode | undefined)[][] {
  const modes = [undefined, "STRICT", "PERMISSIVE"] as const;
  let all: (Mode | undefined)[][] = [[]];
  for (const _ of Object.keys(LEVELS)) {
    all = all.flatMap((chosen) => modes.map((mode) => [...chosen, mode]));
  }
  return all;
}

test("the narrowest level that says something decides, in all 81 combinations", () => {
  expect(choices()).toHaveLength(81);
  for (const chosen of choices()) {
    const levels = Object.entries(LEVELS).map(([key, write], i) => ({
      key,
      write,
      mode: chosen[i],
    }));
    const text = levels.map(({ write, mode }) => (mode === undefined ? "" : write(mode))).join("");
    const narrowest = levels.findLast(({ mode }) => mode !== undefined);
    const want = { mode: narrowest?.mode ?? "STRICT", by: narrowest?.key };
    expect([text, modesOf(text)("shop", "cart", 80)]).toEqual([text, want]);
  }
});

test.each([
  ["another port", "shop", "cart", 81, "PeerAuth/shop/service"],
  ["another service", "shop", "card", 80, "PeerAuth/shop/namespace"],
  ["another namespace", "shop2", "cart", 80, "Mesh/mesh"],
  ["a service called like the namespace", "shop", "shop", 80, "PeerAuth/shop/namespace"],
] as const)("a document says nothing about %s", (_, namespace, service, port, by) => {
  const text = Object.values(LEVELS)
    .map((write) => write("PERMISSIVE"))
    .join("");
  expect(modesOf(text)(namespace, service, port)).toEqual({ mode: "PERMISSIVE", by });
});

test("a Mesh without mtls, and no document at all, are STRICT", () => {
  const plain = "apiVersion: weft.dev/v1\nkind: Mesh\nmetadata: { name: mesh }\n";
  for (const text of [plain, ""]) {
    expect(modesOf(text)("a", "b", 1)).toEqual({ mode: "STRICT", by: undefined });
  }
});
