/** The verbs: their arguments and help. What each does is loaded when it is asked for. */
import { type Command, Option } from "commander";
import { addFlag, writtenFlags } from "../command-flags.ts";
import { type FlagName, settle } from "../flags.ts";
import { usage } from "../grammar.ts";
import type { Session, Typed, VerbContext } from "./session.ts";

type Action = (session: Session, args: readonly string[], typed: Typed) => Promise<number>;

type FlagHelp = Readonly<Partial<Record<FlagName, string>>>;

interface Verb {
  readonly name: string;
  /** `<kind>`, `[name]`, `[names...]` in order. */
  readonly args?: string;
  readonly what: string;
  readonly options?: readonly (readonly [flags: string, help: string])[];
  readonly flags?: readonly FlagName[];
  /** What a flag means to this verb, where that differs from other verbs. */
  readonly help?: FlagHelp;
  readonly examples: string;
  readonly action: Action;
}

const REMOTE: readonly FlagName[] = ["controlplane", "token-file", "data"];
/** These flags start a process elsewhere; here they say where one is. */
const REMOTE_HELP: FlagHelp = {
  controlplane: "its address, such as https://10.0.0.1:17010 (the one on this host)",
  "token-file": "file with an admin token, or - for stdin (admin.token in --data)",
  data: "the control plane's data folder on this host (the usual one)",
};
const LOCAL_HELP: FlagHelp = {
  "port-base": "that of the proxy or control plane (17000)",
  data: "its data folder, where run.json tells its ports (none: by --port-base)",
};
const NAMED: readonly FlagName[] = ["namespace", ...REMOTE];

const OUTPUT = ["-o, --output <FORMAT>", "table, wide, json, yaml or name (table)"] as const;
const WAIT = ["--wait [SHARE]", "wait until every proxy has it, or a share such as 95%"] as const;
const TIMEOUT = ["--timeout <DURATION>", "longest wait (60s)"] as const;
const DRY_RUN = ["--dry-run", "check and show what would change"] as const;
const FILE = ["-f, --file <PATH...>", "a file, a folder, or - for stdin"] as const;
const MESSAGE = ["-m, --message <TEXT>", "why, for the history"] as const;

const CONFIGURE: readonly Verb[] = [
  {
    name: "apply",
    what: "make documents part of the mesh, all or nothing",
    options: [
      FILE,
      DRY_RUN,
      WAIT,
      TIMEOUT,
      MESSAGE,
      ["--prune", "delete everything that is not in these documents"],
      ["--lenient", "accept references to what does not exist yet"],
      ["-o, --output <FORMAT>", "name or json (name)"],
    ],
    flags: REMOTE,
    examples: `
  weft apply -f mesh.yaml
  weft apply -f config/ --wait=95% --timeout 30s -m "reviews v2 to 10 %"
  cat route.yaml | weft apply -f - --dry-run`,
    action: async (session, _, typed) => (await import("./apply.ts")).apply(session, typed),
  },
  {
    name: "get",
    args: "[kind] [name]",
    what: "list documents, or show one",
    options: [
      OUTPUT,
      ["-w, --watch", "keep showing changes"],
      ["-A, --all-namespaces", "of all namespaces"],
    ],
    flags: NAMED,
    examples: `
  weft get                           everything
  weft get services -A
  weft get httproute reviews -o yaml`,
    action: async (session, args, typed) => (await import("./get.ts")).get(session, args, typed),
  },
  {
    name: "delete",
    args: "[kind] [name]",
    what: "delete documents",
    options: [FILE, ["--cascade", "also delete what refers to it"], DRY_RUN, MESSAGE],
    flags: NAMED,
    examples: `
  weft delete httproute reviews
  weft delete service/cart --cascade
  weft delete -f mesh.yaml`,
    action: async (session, args, typed) =>
      (await import("./delete.ts")).remove(session, args, typed),
  },
  {
    name: "diff",
    args: "[from] [to]",
    what: "show what documents would change, or what revisions changed",
    options: [FILE],
    flags: REMOTE,
    examples: `
  weft diff -f mesh.yaml             exit 1 if applying it would change something
  weft diff 3                        from revision 3 to now
  weft diff 3 5`,
    action: async (session, args, typed) => (await import("./diff.ts")).diff(session, args, typed),
  },
  {
    name: "validate",
    what: "check documents without a control plane",
    options: [FILE, ["--lenient", "accept references to what does not exist"]],
    examples: `
  weft validate -f mesh.yaml
  weft validate -f config/`,
    action: async (session, _, typed) => (await import("./validate.ts")).validate(session, typed),
  },
  {
    name: "history",
    what: "list revisions, newest first",
    options: [OUTPUT, ["--limit <N>", "how many (20)"]],
    flags: REMOTE,
    examples: `
  weft history
  weft history -o json --limit 100`,
    action: async (session, _, typed) => (await import("./history.ts")).history(session, typed),
  },
  {
    name: "rollback",
    args: "<revision>",
    what: "make an earlier revision current again, as a new revision",
    options: [WAIT, TIMEOUT, DRY_RUN, MESSAGE],
    flags: REMOTE,
    examples: `
  weft rollback 3 --wait`,
    action: async (session, args, typed) =>
      (await import("./history.ts")).rollback(session, args, typed),
  },
];

const LOOK: readonly Verb[] = [
  {
    name: "status",
    what: "every proxy: acknowledged revision, health, certificate",
    options: [OUTPUT, ["-w, --watch", "keep showing changes"]],
    flags: REMOTE,
    examples: `
  weft status
  weft status -o json | jq '.proxies[].service'`,
    action: async (session, _, typed) => (await import("./status.ts")).status(session, typed),
  },
  {
    name: "check",
    what: "what is wrong with the mesh, and what to do about it",
    options: [["-o, --output <FORMAT>", "table, short or json (table)"]],
    flags: REMOTE,
    examples: `
  weft check
  weft check -o short                only what is not well`,
    action: async (session, _, typed) => (await import("./check.ts")).check(session, typed),
  },
  {
    name: "wait",
    args: "[what]",
    what: "wait until this host's proxy, the control plane or a service is ready",
    options: [TIMEOUT],
    flags: ["port-base", ...NAMED],
    help: { ...LOCAL_HELP, controlplane: "what to ask about a service, or wait for" },
    examples: `
  weft wait                          the proxy on this host
  weft wait controlplane
  weft wait service/cart --timeout 30s`,
    action: async (session, args, typed) => (await import("./ready.ts")).wait(session, args, typed),
  },
  {
    name: "healthcheck",
    args: "[what]",
    what: "exit 0 if this host's proxy or control plane is alive, else 1",
    options: [["--ready", "also demand that it is ready"]],
    flags: ["port-base", "data"],
    help: LOCAL_HELP,
    examples: `
  weft healthcheck                   the proxy; for HEALTHCHECK of a container
  weft healthcheck controlplane --ready`,
    action: async (session, args, typed) =>
      (await import("./ready.ts")).healthcheck(session, args, typed),
  },
];

const OPERATE: readonly Verb[] = [
  {
    name: "backup",
    args: "<file>",
    what: "save the mesh's state to a file, or - for stdout",
    options: [
      ["--keys", "with the private keys: whoever has the file can be the mesh"],
      ["--force", "replace the file if it exists"],
    ],
    flags: REMOTE,
    examples: `
  weft backup mesh.backup
  weft backup --keys - | age -r … > mesh.backup.age`,
    action: async (session, args, typed) =>
      (await import("./backup.ts")).backup(session, args, typed),
  },
  {
    name: "restore",
    args: "<file>",
    what: "put a backup into an empty data folder",
    flags: ["data"],
    help: { data: "folder to put it in (that of this host's control plane)" },
    examples: `
  weft restore mesh.backup --data /srv/weft
  weft controlplane --data /srv/weft`,
    action: async (session, args) => (await import("./backup.ts")).restore(session, args),
  },
  {
    name: "forget",
    args: "<instance>",
    what: "end a proxy's membership: it is not renewed, and has to join again",
    flags: REMOTE,
    examples: `
  weft forget 7mk2v9qhzt              as weft status -o wide names it
  weft token revoke 31eff3976d31      else it may join again`,
    action: async (session, args) => (await import("./forget.ts")).forget(session, args),
  },
  {
    name: "version",
    what: "what this executable is",
    options: [["-o, --output <FORMAT>", "text or json (text)"]],
    examples: `
  weft version -o json`,
    action: async (session, _, typed) => (await import("./about.ts")).version(session, typed),
  },
];

const TOKEN: readonly Verb[] = [
  {
    name: "create",
    what: "create a token and print it",
    options: [
      ["--service <NAME...>", "only for these services (any)"],
      ["--ttl <DURATION>", "how long it can be used (24h; 1h with --once)"],
      ["--once", "for one use"],
      ["--cidr <RANGE>", "only for proxies with addresses in this range"],
      ["--description <TEXT>", "what it is for, for the list"],
      ["--admin", "for the API instead of for joining"],
    ],
    flags: NAMED,
    examples: `
  weft token create --service cart > cart.token
  weft token create --service cart --service db --ttl 1h
  weft token create --admin --ttl 8h > admin.token`,
    action: async (session, _, typed) => (await import("./token.ts")).createToken(session, typed),
  },
  {
    name: "list",
    what: "list tokens; secrets are never shown again",
    options: [OUTPUT],
    flags: REMOTE,
    examples: `
  weft token list`,
    action: async (session, _, typed) => (await import("./token.ts")).listTokens(session, typed),
  },
  {
    name: "revoke",
    args: "<id>",
    what: "make a token unusable from now on",
    flags: REMOTE,
    examples: `
  weft token revoke 7mk2v9qhzt`,
    action: async (session, args) => (await import("./token.ts")).revokeToken(session, args),
  },
];

const NATS: readonly Verb[] = [
  {
    name: "config",
    what: "print what a nats-server of your own needs to serve this mesh",
    flags: ["data"],
    examples: `
  weft nats config > weft.conf        then: include weft.conf in nats-server.conf
  weft controlplane --nats-url nats://10.0.0.2:4222`,
    action: async (session) => (await import("./nats.ts")).natsConfig(session),
  },
];

export function addVerbs(program: Command, context: VerbContext): void {
  program.commandsGroup("Configure it:");
  for (const verb of CONFIGURE) addVerb(program, verb, context);
  program.commandsGroup("Look at it:");
  for (const verb of LOOK) addVerb(program, verb, context);
  program.commandsGroup("Operate it:");
  const token = program.command("token").description("tokens for proxies and people");
  token.helpOption("-h, --help", "print help");
  for (const verb of TOKEN) addVerb(token, verb, context);
  token.argument("[verb]").action((verb?: string) => {
    const why = verb === undefined ? "token needs a verb" : `token has no verb "${verb}"`;
    throw usage(why, "weft token create, list or revoke");
  });
  const nats = program.command("nats").description("settings for a NATS of your own");
  nats.helpOption("-h, --help", "print help");
  for (const verb of NATS) addVerb(nats, verb, context);
  nats.action(() => {
    throw usage("nats needs a verb", "weft nats config");
  });
  for (const verb of OPERATE) addVerb(program, verb, context);
}

function addVerb(parent: Command, verb: Verb, context: VerbContext): void {
  const command = parent.command(verb.name).description(verb.what);
  command.helpOption("-h, --help", "print help");
  const path = parent.parent === null ? verb.name : `${parent.name()} ${verb.name}`;
  command.showHelpAfterError(`  fix: see weft help ${path}`);
  if (verb.args !== undefined) command.arguments(verb.args);
  for (const [flags, help] of verb.options ?? []) command.addOption(new Option(flags, help));
  for (const name of verb.flags ?? []) {
    addFlag(command, name, verb.help?.[name] ?? REMOTE_HELP[name]);
  }
  command.addHelpText("after", `\nExamples:${verb.examples}\n`);
  command.action(async () => {
    const names = verb.flags ?? [];
    const settings = settle(names, writtenFlags(command, names), context.env);
    const session: Session = {
      terminal: context.terminal,
      env: context.env,
      settings,
      namespace: settings.namespace ?? "default",
      client: async () => {
        const { createClient } = await import("./client.ts");
        const { locate } = await import("./locate.ts");
        return createClient(locate(settings, context.env, process.getuid?.() ?? 0));
      },
    };
    context.outcome.code = await verb.action(session, command.args, command.opts());
  });
}
