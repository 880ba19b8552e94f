/** Applications behind the mesh: a small HTTP echo in this process, and a real nginx. */
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run, spawn, until } from "./mesh.ts";

export interface App {
  readonly port: number;
  stop(): void;
}

/** Answers with what it saw, and its own name. */
export function echo(name: string): App {
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    async fetch(request) {
      const url = new URL(request.url);
      if (url.pathname === "/slow") await Bun.sleep(Number(url.searchParams.get("ms")));
      if (url.pathname === "/status") {
        return new Response("", { status: Number(url.searchParams.get("code")) });
      }
      return Response.json({
        name,
        method: request.method,
        path: url.pathname + url.search,
        headers: Object.fromEntries(request.headers),
        body: await request.text(),
      });
    },
  });
  return { port: server.port ?? 0, stop: () => void server.stop(true) };
}

/** An nginx that serves `files` and proxies nothing. */
export async function nginx(port: number, locations: string): Promise<App> {
  const folder = mkdtempSync(join(tmpdir(), "weft-nginx-"));
  mkdirSync(join(folder, "root"));
  const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    .map((name) => `${name}_temp_path ${folder}/${name};`)
    .join("\n  ");
  writeFileSync(
    join(folder, "nginx.conf"),
    `daemon off; master_process off; worker_processes 1; pid ${folder}/pid;
error_log ${folder}/error.log warn;
events { worker_connections 512; }
http {
  access_log off; client_max_body_size 0;
  ${paths}
  server { listen 127.0.0.1:${port}; root ${folder}/root; ${locations} }
}
`,
  );
  const child = spawn(["nginx", "-p", folder, "-c", join(folder, "nginx.conf")]);
  await until(
    "nginx answers",
    async () => (await run(["curl", "-s", `127.0.0.1:${port}/`])).code === 0,
  );
  return { port, stop: () => child.kill("SIGKILL") };
}
