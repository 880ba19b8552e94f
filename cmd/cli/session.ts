/** What verbs are given. */
import type { Environment } from "../environment.ts";
import type { Settings } from "../flags.ts";
import type { Client } from "./client.ts";
import type { Terminal } from "./terminal.ts";

/** Set by the action that ran. */
export interface Outcome {
  code: number;
}

export interface VerbContext {
  readonly terminal: Terminal;
  readonly env: Environment;
  readonly outcome: Outcome;
}

/** What every action gets: its terminal, its settings, and the API when it asks. */
export interface Session {
  readonly terminal: Terminal;
  readonly env: Environment;
  readonly settings: Settings;
  readonly namespace: string;
  readonly client: () => Promise<Client>;
}

/** Options of a verb as typed, before they are read. */
export type Typed = Readonly<Record<string, unknown>>;
