/** What the pages show works: documents can be applied, links lead somewhere. */
import { expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { httpRouteSpec } from "../src/config/http-route.ts";
import {
  meshSpec,
  peerAuthSpec,
  processSpec,
  serviceSpec,
  trafficPolicySpec,
  workloadSpec,
} from "../src/config/kinds.ts";
import { parseSources } from "../src/config/parse.ts";
import { API_VERSIONS, type Kind } from "../src/config/resource.ts";

const ROOT = join(import.meta.dir, "..");
const PAGES = [
  ...readdirSync(ROOT).filter((name) => name.endsWith(".md")),
  ...readdirSync(join(ROOT, "docs"), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".md"))
    .map((name) => join("docs", name)),
];

const textOf = (page: string) => readFileSync(join(ROOT, page), "utf8");

/** Fenced blocks of YAML that hold documents, without the indentation of a list around them. */
function documentsIn(page: string): string[] {
  return [...textOf(page).matchAll(/^( *)```yaml\n([\s\S]*?)^ *```/gm)]
    .map(([, indent = "", text = ""]) => text.replaceAll(new RegExp(`^${indent}`, "gm"), ""))
    .filter((text) => text.startsWith("apiVersion:"));
}

test.each(PAGES.filter((page) => documentsIn(page).length > 0))(
  "%s: documents are valid",
  (page) => {
    const sources = documentsIn(page).map((text, i) => ({ name: `${page} ${i}`, text }));
    for (const source of sources) expect(parseSources([source]).issues).toEqual([]);
  },
);

test("each kind has an example on the configuration page", () => {
  const text = documentsIn("docs/configuration.md").join("---\n");
  for (const kind of Object.keys(API_VERSIONS)) expect(text).toContain(`kind: ${kind}\n`);
});

const SPECS = {
  Mesh: meshSpec,
  Service: serviceSpec,
  Workload: workloadSpec,
  HTTPRoute: httpRouteSpec,
  TrafficPolicy: trafficPolicySpec,
  PeerAuth: peerAuthSpec,
  Process: processSpec,
} as const satisfies Record<Kind, object>;

test.each(Object.entries(SPECS))("each field of %s stands in its section", (kind, spec) => {
  const page = textOf("docs/configuration.md");
  const from = page.indexOf(`\n## ${kind}\n`);
  const section = page.slice(from, page.indexOf("\n## ", from + 1));
  for (const field of Object.keys(spec.entries)) {
    expect(section).toMatch(new RegExp(`^\\|.*\`${field}[\\[.\`]`, "m"));
  }
});

/** As GitHub makes them of headings. */
function anchorsIn(page: string): string[] {
  return [...textOf(page).matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-"),
  );
}

test.each(PAGES)("%s: links lead somewhere", (page) => {
  for (const [, target = ""] of textOf(page).matchAll(/\]\(([^)\s]+)\)/g)) {
    if (/^https?:/.test(target)) continue;
    const [path = "", anchor] = target.split("#");
    const to = path === "" ? page : join(dirname(page), path);
    expect({ target, there: existsSync(join(ROOT, to)) }).toEqual({ target, there: true });
    if (anchor !== undefined) expect(anchorsIn(to)).toContain(anchor);
  }
});
