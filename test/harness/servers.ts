/** Applications behind the mesh: a small HTTP echo in this process, and a real nginx. */
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
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

/** An nginx that serves `files`, texts by their names, and proxies nothing. */
export async function nginx(
  port: number,
  locations: string,
  files: Readonly<Record<string, string>> = {},
): Promise<App> {
  const folder = mkdtempSync(join(tmpdir(), "weft-nginx-"));
  mkdirSync(join(folder, "root"));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, "root", name), text);
  const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    .map((name) => `${name}_temp_path ${folder}/${name};`)
    .join("\n  ");
  writeFileSync(
    join(folder, "nginx.conf"),
    `daemon off; master_process off; worker_processes 1; pid ${folder}/pid;
error_log ${folder}/error.log warn;
events { worker_connections 4096; }
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

/** Takes any mail, as little of SMTP as RFC 5321 section 4.5.1 asks of a server. */
export function mail(port: number): App {
  const server = createServer((socket) => {
    let text = "";
    let inData = false;
    const answer = (line: string): string => {
      const verb = line.slice(0, 4).toUpperCase();
      if (verb === "EHLO") return "250-mail.weft.test\r\n250 SIZE 1000000\r\n";
      if (verb === "DATA") return "354 end with a dot\r\n";
      if (verb === "QUIT") return "221 bye\r\n";
      return ["HELO", "MAIL", "RCPT", "RSET", "NOOP"].includes(verb)
        ? "250 ok\r\n"
        : "500 what?\r\n";
    };
    socket.write("220 mail.weft.test ESMTP\r\n");
    socket.on("error", () => socket.destroy());
    socket.on("data", (chunk) => {
      text += chunk.toString("latin1");
      for (;;) {
        const end = inData ? "\r\n.\r\n" : "\r\n";
        const at = text.indexOf(end);
        if (at === -1) return;
        const line = text.slice(0, at);
        text = text.slice(at + end.length);
        const said = inData ? "250 taken\r\n" : answer(line);
        inData = said.startsWith("354");
        socket.write(said);
        if (said.startsWith("221")) socket.end();
      }
    });
  });
  server.listen(port, "127.0.0.1");
  return { port, stop: () => void server.close() };
}
