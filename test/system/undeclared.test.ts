/**
 * Ports without a declared protocol, in front of servers that others wrote, talked to by their own
 * clients: the same session with and without two proxies between. Databases that are not installed
 * are skipped and named.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { chmodSync, chownSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { connect as connectNats } from "nats";
import { fetchNats } from "../../scripts/fetch-nats.ts";
import { metrics, run, type Sidecar, TestMesh, takePorts, until } from "../harness/mesh.ts";
import { mail } from "../harness/servers.ts";

/** What a session may take longer than without proxies, milliseconds; others share the machine. */
const ADDED_MS = 3 * 50;
const ROUNDS = 3;

/** A server, and a client that exits 0 after a few round trips with what `says` matches. */
interface Program {
  readonly port: number;
  readonly up: number;
  /** What the caller's proxy finds out, and is told about later callers. */
  readonly verdict: "server_first" | "not_http";
  readonly session: (port: number) => Promise<string>;
  readonly says: RegExp | string;
  readonly needs: readonly string[];
}

const ports = takePorts(10);
const here = (command: (port: string) => readonly string[], stdin?: string) => {
  return async (port: number): Promise<string> => {
    const result = await run(command(String(port)), stdin === undefined ? {} : { stdin });
    if (result.code !== 0) throw new Error(`exit ${result.code}: ${result.stderr}`);
    return result.stdout;
  };
};

const SEND_MAIL = `
import smtplib, sys
with smtplib.SMTP("127.0.0.1", int(sys.argv[1]), timeout=5) as s:
    print(s.sendmail("a@weft.test", ["b@weft.test", "c@weft.test"], "Subject: x\\r\\n\\r\\n" + "y" * 70000))
`;

const sql = ["select 1", "select 2", "select repeat('x', 100000)"];

const PROGRAMS: Readonly<Record<string, Program>> = {
  smtplib: {
    ...{ port: ports, up: ports + 5, verdict: "server_first", says: "{}\n" },
    session: here((port) => ["python3", "-c", SEND_MAIL, port]),
    needs: [],
  },
  redis: {
    ...{ port: ports + 1, up: ports + 6, verdict: "not_http", says: "OK\nv\n1\n" },
    session: here((port) => ["redis-cli", "-p", port], "set k v\nget k\ndel k\n"),
    needs: [],
  },
  nats: {
    ...{ port: ports + 2, up: ports + 7, verdict: "server_first", says: "pong" },
    session: async (port) => {
      const connection = await connectNats({ servers: `127.0.0.1:${port}`, reconnect: false });
      connection.subscribe("ping", { callback: (_, message) => message.respond("pong") });
      const answer = await connection.request("ping");
      await connection.drain();
      return answer.string();
    },
    needs: [],
  },
  postgres: {
    ...{ port: ports + 3, up: ports + 8, verdict: "not_http", says: /^1\n2\nx{100000}\n$/ },
    session: here((port) => [
      ...["psql", "-qAt", `host=127.0.0.1 port=${port} user=me dbname=postgres`],
      ...sql.flatMap((statement) => ["-c", statement]),
    ]),
    needs: ["initdb", "postgres", "psql"],
  },
  mariadb: {
    ...{ port: ports + 4, up: ports + 9, verdict: "server_first", says: /^1\n2\nx{100000}\n$/ },
    session: here((port) => [
      ...["mariadb", "--no-defaults", "-h127.0.0.1", `-P${port}`, "-uroot", "-N", "--skip-ssl"],
      ...["-e", sql.join(";")],
    ]),
    needs: ["mariadb-install-db", "mariadbd", "mariadb"],
  },
};

/** The first of a server's programs that is not installed. */
function missing({ needs }: Program): string | undefined {
  const PATH = `${process.env["PATH"]}:/usr/sbin`;
  return needs.find((program) => Bun.which(program, { PATH }) === null);
}

let mesh: TestMesh;
let web: Sidecar;
const mailbox = mail(PROGRAMS["smtplib"]!.port);

/** Databases do not run as root. */
function asNobody(...command: readonly string[]): readonly string[] {
  if (process.getuid?.() !== 0) return command;
  return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", ...command];
}

/** A folder below the mesh's own that the databases may write. */
function folderOf(name: string): string {
  const folder = join(mesh.folder, name);
  mkdirSync(folder);
  chmodSync(mesh.folder, 0o755);
  if (process.getuid?.() === 0) chownSync(folder, 65_534, 65_534);
  return folder;
}

async function startPostgres(port: number): Promise<void> {
  const folder = folderOf("postgres");
  const data = join(folder, "data");
  const how = ["-U", "me", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C"];
  const made = await run(asNobody("initdb", "-D", data, ...how));
  if (made.code !== 0) throw new Error(made.stderr);
  const options = ["-h", "127.0.0.1", "-p", String(port), "-k", folder, "-F"];
  mesh.spawn(asNobody("postgres", "-D", data, ...options));
}

async function startMariadb(port: number): Promise<void> {
  const folder = folderOf("mariadb");
  const at = ["--no-defaults", `--datadir=${join(folder, "data")}`];
  const how = ["--auth-root-authentication-method=normal", "--skip-test-db"];
  const made = await run(asNobody("mariadb-install-db", ...at, ...how));
  if (made.code !== 0) throw new Error(made.stdout + made.stderr);
  const listen = ["--bind-address=127.0.0.1", `--port=${port}`, `--socket=${folder}/socket`];
  mesh.spawn(asNobody("mariadbd", ...at, ...listen));
}

beforeAll(async () => {
  mesh = await TestMesh.start();
  const { redis, nats, postgres, mariadb } = PROGRAMS as Required<typeof PROGRAMS>;
  const bind = ["--bind", "127.0.0.1", "--save", ""];
  mesh.spawn(["redis-server", "--port", String(redis!.port), ...bind]);
  mesh.spawn([fetchNats(), "-a", "127.0.0.1", "-p", String(nats!.port)]);
  const here = Object.values(PROGRAMS).filter((program) => missing(program) === undefined);
  await Promise.all([
    here.includes(postgres!) && startPostgres(postgres!.port),
    here.includes(mariadb!) && startMariadb(mariadb!.port),
  ]);
  const app = here.map(({ port }) => String(port));
  const upstream = here.map(({ port, up }) => `apps/${port}:${up}`);
  await mesh.sidecar({ service: "apps", app });
  web = await mesh.sidecar({ service: "web", upstream });
}, 60_000);

afterAll(async () => {
  mailbox.stop();
  await mesh?.stop();
});

async function timed(run: () => Promise<string>, says: RegExp | string): Promise<number> {
  const start = performance.now();
  const said = await run();
  const ms = performance.now() - start;
  if (typeof says === "string") expect(said).toBe(says);
  else expect(said).toMatch(says);
  return ms;
}

const median = (of: readonly number[]): number => of.toSorted((a, b) => a - b)[of.length >> 1]!;

for (const [name, program] of Object.entries(PROGRAMS)) {
  const { port, up, session, says, verdict } = program;
  const lacks = missing(program);
  test.skipIf(lacks !== undefined)(
    `${name}${lacks ? ` (no ${lacks} here)` : ""}`,
    async () => {
      await until(`${name} answers`, () => session(port));
      const first = await timed(() => session(up), says);
      const direct: number[] = [];
      const through: number[] = [];
      for (let i = 0; i < ROUNDS; i++) {
        direct.push(await timed(() => session(port), says));
        through.push(await timed(() => session(up), says));
      }
      const added = median(through) - median(direct);
      const times = [median(direct), median(through), first].map((ms) => ms.toFixed(1));
      console.log(
        `${name}: direct ${times[0]} ms, through ${times[1]} ms, the first ${times[2]} ms`,
      );
      expect(added).toBeLessThan(ADDED_MS);
      expect(first - median(direct)).toBeLessThan(ADDED_MS);
      const counted = `verdict="${verdict === "server_first" ? "remembered" : verdict}"`;
      const line = `weft_protocol_detections_total\\{.*port="${port}",${counted}\\} (\\d+)`;
      const seen = new RegExp(line).exec(await metrics(web))?.[1];
      expect(Number(seen)).toBe(verdict === "server_first" ? ROUNDS : ROUNDS + 1);
    },
    30_000,
  );
}
