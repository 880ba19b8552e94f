/** The command line: modes and verbs, their help, and how an error ends the program. */
import { join, resolve } from "node:path";
import { Command, CommanderError } from "commander";
import { EXIT, Failure } from "../src/error.ts";
import type { Outcome } from "./cli/session.ts";
import { explain, type Terminal } from "./cli/terminal.ts";
import { addVerbs } from "./cli/verbs.ts";
import { addFlag, writtenFlags } from "./command-flags.ts";
import { type Environment, refuseUnsafe, stateFolder } from "./environment.ts";
import {
  type ConfigFile,
  type FlagName,
  MODE_FLAGS,
  type Mode,
  readConfigFile,
  type Settings,
  settle,
  variableOf,
} from "./flags.ts";
import { readOneOf } from "./grammar.ts";
import { ensureSurroundings } from "./proxy/second-start.ts";
import {
  controlplaneOptions,
  DEFAULTS,
  nodeOptions,
  type Surroundings,
  sidecarOptions,
} from "./start.ts";
import { processTerminal } from "./terminal.ts";
import { COMMIT, VERSION } from "./version.ts";

const MODES: readonly Mode[] = ["controlplane", "sidecar", "node"];

/** Runs one command line and gives the exit code. */
export async function run(args: readonly string[], env: Environment): Promise<number> {
  const terminal = processTerminal();
  const outcome: Outcome = { code: EXIT.ok };
  try {
    refuseUnsafe(env);
    const program = buildProgram(terminal, env, outcome);
    await program.parseAsync(expandHelp(expandMode(args, env), program), { from: "user" });
    return outcome.code;
  } catch (error) {
    return failed(terminal, error);
  }
}

function failed(terminal: Terminal, error: unknown): number {
  if (error instanceof CommanderError) {
    // Help and version are answers, and commander has already printed them.
    return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
  }
  explain(terminal, error);
  return error instanceof Failure ? error.exit : EXIT.failed;
}

/** `--mode=X`, `WEFT_MODE` and `mode:` in the `--config` file become the sub-command X. */
export function expandMode(args: readonly string[], env: Environment): readonly string[] {
  const at = args.findIndex((arg) => arg === "--mode" || arg.startsWith("--mode="));
  if (at >= 0) {
    const inline = args[at]!.startsWith("--mode=");
    const name = inline ? args[at]!.slice("--mode=".length) : (args[at + 1] ?? "");
    const mode = readOneOf(MODES)(name, "--mode");
    const rest = [...args.slice(0, at), ...args.slice(at + (inline ? 1 : 2))];
    return rest[0] === mode ? rest : [mode, ...rest];
  }
  const first = args[0];
  if (first !== undefined && !first.startsWith("-")) return args;
  if (args.some((arg) => ["-h", "--help", "-V", "--version"].includes(arg))) return args;
  const variable = env["WEFT_MODE"] ?? "";
  if (variable !== "") return [readOneOf(MODES)(variable, "WEFT_MODE"), ...args];
  const file = configFile(valueAfter(args, "--config"), env);
  const mode = file?.values["mode"];
  if (mode === undefined) return args;
  return [readOneOf(MODES)(String(mode), `mode in ${file?.path}`), ...args];
}

/** `help token create` is `token create --help`; an unknown verb is told as if it were called. */
function expandHelp(args: readonly string[], program: Command): readonly string[] {
  const [first, verb, ...more] = args;
  if (first !== "help" || verb === undefined) return args;
  const known = program.commands.some((command) => command.name() === verb);
  return known ? [verb, ...more, "--help"] : [verb];
}

function valueAfter(args: readonly string[], flag: string): string | undefined {
  const at = args.findIndex((arg) => arg === flag || arg.startsWith(`${flag}=`));
  if (at < 0) return undefined;
  return args[at] === flag ? args[at + 1] : args[at]!.slice(flag.length + 1);
}

function configFile(path: string | undefined, env: Environment): ConfigFile | undefined {
  if (path !== undefined) return readConfigFile(path, "--config");
  const variable = env[variableOf("config")] ?? "";
  return variable === "" ? undefined : readConfigFile(variable, variableOf("config"));
}

function buildProgram(terminal: Terminal, env: Environment, outcome: Outcome): Command {
  const program = new Command("weft");
  program
    .description("A service mesh in one executable: control plane, sidecar and node proxy.")
    .version(`weft ${VERSION} (${COMMIT})`, "-V, --version", "print the version")
    .helpOption("-h, --help", "print help")
    .helpCommand("help [VERB]", "help for a mode or verb")
    .showHelpAfterError("  fix: see weft help")
    .showSuggestionAfterError(true)
    .configureHelp({ showGlobalOptions: false })
    .configureOutput({
      writeOut: terminal.out,
      writeErr: terminal.err,
      // The suggestion belongs to the line it is about.
      outputError: (text, write) => write(text.replace(/\n\((Did you mean .*\?)\)/, ". $1")),
      getOutHelpWidth: () => (terminal.outWatched ? terminal.columns : 100),
      getErrHelpWidth: () => terminal.columns,
    })
    .exitOverride()
    .addHelpText("after", EXAMPLES);
  program.commandsGroup("Run a part of the mesh:");
  addUp(program, terminal, env, outcome);
  for (const mode of MODES) addMode(program, mode, terminal, env, outcome);
  addVerbs(program, { terminal, env, outcome });
  return program;
}

const EXAMPLES = `
Every flag has a variable and a key in a --config file: --port-base is WEFT_PORT_BASE and
port-base:. Flags win over variables, variables over the file. \`weft --mode=sidecar\` is
\`weft sidecar\`.

Examples:
  weft up mesh.yaml                                  a whole mesh on this machine
  weft controlplane                                  start the control plane
  weft token create --service cart > cart.token      a token for the service's proxies
  weft sidecar --service cart --app 8080 --token-file cart.token
  weft apply -f routes.yaml --wait                   change routes, wait until they are live
  weft check                                         what is wrong, and what to do about it
`;

const ABOUT: Readonly<Record<Mode, { readonly what: string; readonly examples: string }>> = {
  controlplane: {
    what: "API, certificate authority, registry and configuration of a mesh",
    examples: `
Examples:
  weft controlplane
  weft controlplane --bind 10.0.0.1 --data /srv/weft     reachable from other hosts
  weft controlplane --nats-url nats://10.0.0.2:4222      use an existing NATS

The first start writes the admin token to admin.token in the data folder; verbs of this host find
it there. SIGTERM stops it; proxies keep serving meanwhile.
`,
  },
  sidecar: {
    what: "a proxy beside one instance of a service",
    examples: `
Examples:
  weft sidecar --service cart --app 8080 --token-file cart.token
  weft sidecar --service cart --app 80=8080 --upstream db:9191 --label version=v2
  weft sidecar --service jobs --token-file jobs.token    a client only, without --app

The application calls others by http://127.0.0.1:17001 with their name as Host, or by the local
port of an --upstream. SIGTERM drains, a second one stops at once.
`,
  },
  node: {
    what: "one proxy for all workloads of a host, each with its own identity",
    examples: `
Examples:
  weft node --workload cart=8080 --workload db=5432/tcp --token-file node.token
  weft node --workloads workloads.yaml --token-file node.token

Each workload reaches the mesh by its own address, 127.0.17.1:17001, 127.0.17.2:17001 and so on,
in the order they are declared; they are printed at start and written to run.json.
`,
  },
};

const PROXY_BIND = "address of the mesh port (0.0.0.0)";
const OF_STATE = "$XDG_STATE_HOME/weft, for root /var/lib/weft";

/** What a flag is to one mode, where the table has to speak of all. */
const FLAG_HELP: Readonly<Record<Mode, Readonly<Partial<Record<FlagName, string>>>>> = {
  controlplane: {
    data: `folder for all state (controlplane in ${OF_STATE})`,
    bind: "address of the API (127.0.0.1)",
  },
  sidecar: {
    data: `folder for identity and configuration (sidecar/NAMESPACE.SERVICE in ${OF_STATE})`,
    bind: PROXY_BIND,
    controlplane: "its address, such as https://10.0.0.1:17010 (the one in the token)",
  },
  node: {
    data: `folder for identities and configuration (node in ${OF_STATE})`,
    bind: PROXY_BIND,
    controlplane: "its address, such as https://10.0.0.1:17010 (the one in the token)",
  },
};

function addMode(
  program: Command,
  mode: Mode,
  terminal: Terminal,
  env: Environment,
  outcome: Outcome,
): void {
  const command = program.command(mode).description(ABOUT[mode].what);
  command.helpOption("-h, --help", "print help").addHelpText("after", ABOUT[mode].examples);
  command.showHelpAfterError(`  fix: see weft help ${mode}`);
  for (const name of MODE_FLAGS[mode]) addFlag(command, name, FLAG_HELP[mode][name]);
  command.action(async () => {
    const written = writtenFlags(command, MODE_FLAGS[mode]);
    const file = configFile(written["config"]?.toString(), env);
    const settings = settle(MODE_FLAGS[mode], written, env, file);
    const around: Surroundings = {
      env,
      uid: process.getuid?.() ?? 0,
      version: VERSION,
      terminal: terminal.errWatched,
    };
    outcome.code = await start(mode, settings, around);
  });
}

const UP_FLAGS = ["data", "port-base", "access-log", "log-level", "drain"] as const;
/** Connections that never end, to a database for one, should not hold up Ctrl-C. */
const UP_DRAIN_MS = 2_000;

function addUp(program: Command, terminal: Terminal, env: Environment, outcome: Outcome): void {
  const command = program.command("up").argument("<file>", "documents, with a Process for each");
  command.description("a whole mesh on this machine, with the programs that the file names");
  command.helpOption("-h, --help", "print help").addHelpText("after", UP_EXAMPLES);
  command.showHelpAfterError("  fix: see weft help up");
  addFlag(command, "data", `folder for the state of it all (up in ${OF_STATE})`);
  addFlag(command, "port-base");
  addFlag(command, "access-log");
  addFlag(command, "log-level");
  addFlag(command, "drain", "longest wait for open requests when stopping (2s)");
  command.action(async (file: string) => {
    const settings = settle(UP_FLAGS, writtenFlags(command, UP_FLAGS), env);
    const { runUp } = await import("./up.ts");
    const folder = join(stateFolder(env, process.getuid?.() ?? 0), "up");
    const options = {
      file,
      data: resolve(settings.data ?? folder),
      portBase: settings["port-base"] ?? DEFAULTS.portBase,
      accessLog: settings["access-log"] === "on",
      logLevel: settings["log-level"] ?? "info",
      drainMs: settings.drain ?? UP_DRAIN_MS,
      env,
    };
    outcome.code = await runUp(options, terminal);
  });
}

const UP_EXAMPLES = `
Examples:
  weft up mesh.yaml
  weft up mesh.yaml --data ./state --port-base 20000

A document of kind Process names a program:

  apiVersion: weft.dev/v1
  kind: Process
  metadata: { name: cart }
  spec:
    command: [node, cart.js]       # told PORT, WEFT_PROXY and WEFT_UPSTREAM_DB
    service: cart
    app: ["8080"]                  # as --app
    upstreams: ["db:9191"]         # as --upstream

Every program stands behind a sidecar process of its own; those with the same \`node: NAME\` share
a node proxy. Paths are seen from the file's folder. What ends with an error is started again.
Ctrl-C drains, stops everything and exits 0; a second one kills it.
`;

async function start(mode: Mode, settings: Settings, around: Surroundings): Promise<number> {
  if (mode === "controlplane") {
    const options = controlplaneOptions(settings, around);
    const { carriedNatsServer } = await import("./carried.ts");
    const carried = await carriedNatsServer();
    const { runControlplane } = await import("./controlplane.ts");
    return runControlplane(carried === undefined ? options : { ...options, natsEmbedded: carried });
  }
  const options =
    mode === "sidecar" ? sidecarOptions(settings, around) : nodeOptions(settings, around);
  ensureSurroundings();
  const { runProxy } = await import("./proxy.ts");
  return runProxy(options);
}
