/** What a run of the benchmark tells: the same report as JSON for programs and as a table. */
import type { Interval, Verdict } from "./measure.ts";

export interface Scenario {
  readonly name: string;
  readonly unit: string;
  readonly ours: number;
  readonly peers: Readonly<Record<string, number>>;
  /** Ours ÷ peer. */
  readonly ratios: Readonly<Record<string, Interval>>;
  readonly verdict: Verdict;
  /** In words; "" when there is none. */
  readonly budget: string;
  /** Requests of ours that failed. */
  readonly failed: number;
}

export interface Report {
  readonly machine: string;
  /** By program. */
  readonly versions: Readonly<Record<string, string>>;
  readonly scenarios: readonly Scenario[];
}

export function reportJson({ machine, versions, scenarios }: Report): string {
  return JSON.stringify({ machine, versions, scenarios }, null, 2);
}

export function reportText({ machine, versions, scenarios }: Report): string {
  const rows = scenarios.map(rowOf).join("\n");
  return `${machine}\n${Object.values(versions).join(" · ")}\n\n${rows}`;
}

function rowOf(scenario: Scenario): string {
  const number = (value: number) => (value >= 100 ? value.toFixed(0) : value.toFixed(2));
  const peers = Object.entries(scenario.peers).map(([peer, value]) => {
    const ratio = scenario.ratios[peer];
    const shown =
      ratio === undefined
        ? ""
        : ` (${ratio.median.toFixed(2)} × [${ratio.lo.toFixed(2)}, ${ratio.hi.toFixed(2)}])`;
    return `${peer} ${number(value)}${shown}`;
  });
  const failed = scenario.failed > 0 ? `, ${scenario.failed} FAILED` : "";
  const verdict = scenario.budget === "" ? "" : `${scenario.verdict} (${scenario.budget})`;
  return [
    scenario.name.padEnd(20),
    `${number(scenario.ours)} ${scenario.unit}`.padEnd(28),
    `${peers.join("; ")}  `.padEnd(66),
    `${verdict}${failed}`,
  ].join("");
}
