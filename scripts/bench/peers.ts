/**
 * HAProxy and nginx as peers, one thread each, doing what our proxies do in the scenario: TLS 1.3,
 * P-256 certificates, client certificates demanded and verified on the inner hop, keep-alive
 * everywhere, the same two headers added. They hold no policy, registry or telemetry.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { PROXY_CORE } from "./load.ts";

export interface Ports {
  readonly backend: number;
  readonly haproxyPlain: number;
  readonly haproxyFront: number;
  readonly haproxyMesh: number;
  readonly haproxyTcpFront: number;
  readonly haproxyTcpMesh: number;
  readonly haproxyTcpPlain: number;
  readonly nginxPlain: number;
  readonly nginxFront: number;
  readonly nginxMesh: number;
  readonly envoyPlain: number;
  readonly envoyFront: number;
  readonly envoyMesh: number;
  readonly envoyTcpPlain: number;
  readonly envoyTcpFront: number;
  readonly envoyTcpMesh: number;
  readonly iperf: number;
}

/** The peers' identity, for those that know SPIFFE ids. */
export const BENCH_ID = "spiffe://bench/ns/default/sa/leaf";

export interface Child {
  readonly pid: number;
  stop(): Promise<void>;
}

export function spawn(command: readonly string[], core: string): Child {
  const child = Bun.spawn(["taskset", "-c", core, ...command], {
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  return {
    pid: child.pid,
    stop: async () => {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}

function openssl(args: readonly string[]): void {
  const result = Bun.spawnSync(["openssl", ...args], { stderr: "pipe" });
  if (result.exitCode !== 0) throw new Error(`openssl ${args[0]}: ${result.stderr.toString()}`);
}

/** A root and one leaf with key, P-256, good for both ends of the peers' inner hop. */
export function makeCertificates(folder: string): void {
  const at = (name: string) => join(folder, name);
  for (const name of ["root", "leaf"]) {
    openssl(["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", at(`${name}.key`)]);
  }
  openssl(
    `req -x509 -new -key ${at("root.key")} -subj /CN=bench -days 2 -out ${at("root.pem")}`.split(
      " ",
    ),
  );
  openssl(`req -new -key ${at("leaf.key")} -subj /CN=leaf -out ${at("leaf.csr")}`.split(" "));
  writeFileSync(at("leaf.ext"), `subjectAltName=DNS:leaf.bench,URI:${BENCH_ID}\n`);
  openssl(
    (
      `x509 -req -in ${at("leaf.csr")} -CA ${at("root.pem")} -CAkey ${at("root.key")} ` +
      `-CAcreateserial -days 2 -extfile ${at("leaf.ext")} -out ${at("leaf.pem")}`
    ).split(" "),
  );
  const both = Bun.spawnSync(["cat", at("leaf.pem"), at("leaf.key")]).stdout;
  writeFileSync(at("both.pem"), both);
}

function haproxyConfig(folder: string, ports: Ports): { front: string; mesh: string } {
  const common = `
global
  nbthread 1
defaults
  timeout connect 3s
  timeout client 60s
  timeout server 60s
  http-reuse always
`;
  const headers = `
  http-request set-header x-request-id %[uuid()] if !{ req.hdr(x-request-id) -m found }
  http-request set-header traceparent 00-%[uuid(),regsub(-,,g)]-%[rand(2147483647),hex]%[rand(2147483647),hex]-01 if !{ req.hdr(traceparent) -m found }`;
  const tls = `ssl ca-file ${folder}/root.pem`;
  const front = `${common}
listen plain
  mode http
  bind 127.0.0.1:${ports.haproxyPlain}${headers}
  server backend 127.0.0.1:${ports.backend}
listen front
  mode http
  bind 127.0.0.1:${ports.haproxyFront}${headers}
  server mesh 127.0.0.1:${ports.haproxyMesh} ${tls} verify required verifyhost leaf.bench sni str(leaf.bench) crt ${folder}/both.pem ssl-min-ver TLSv1.3
listen tcp-plain
  mode tcp
  option splice-auto
  bind 127.0.0.1:${ports.haproxyTcpPlain}
  server backend 127.0.0.1:${ports.iperf}
listen tcp
  mode tcp
  bind 127.0.0.1:${ports.haproxyTcpFront}
  server mesh 127.0.0.1:${ports.haproxyTcpMesh} ${tls} verify required verifyhost leaf.bench sni str(leaf.bench) crt ${folder}/both.pem ssl-min-ver TLSv1.3
`;
  const bindTls = `${tls} verify required crt ${folder}/both.pem ssl-min-ver TLSv1.3`;
  const mesh = `${common}
listen mesh
  mode http
  bind 127.0.0.1:${ports.haproxyMesh} ${bindTls.replace("ssl ca-file", "ssl ca-file")}
  server backend 127.0.0.1:${ports.backend}
listen tcp
  mode tcp
  bind 127.0.0.1:${ports.haproxyTcpMesh} ${bindTls}
  server backend 127.0.0.1:${ports.iperf}
`;
  return { front, mesh };
}

function nginxConfig(folder: string, name: string, servers: string): string {
  return `
worker_processes 1;
daemon off;
master_process off;
pid ${folder}/${name}.pid;
error_log ${folder}/${name}.log warn;
events { worker_connections 24000; }
http {
  access_log off;
  keepalive_requests 100000000;
  client_body_temp_path ${folder}/${name}-body;
  proxy_temp_path ${folder}/${name}-proxy;
  fastcgi_temp_path ${folder}/${name}-fastcgi;
  uwsgi_temp_path ${folder}/${name}-uwsgi;
  scgi_temp_path ${folder}/${name}-scgi;
  proxy_http_version 1.1;
  ${servers}
}
`;
}

const NGINX_HEADERS = `
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    proxy_set_header x-request-id $request_id;
    proxy_set_header traceparent "00-$request_id-$connection-01";`;

function upstream(name: string, port: number): string {
  return `upstream ${name} { server 127.0.0.1:${port}; keepalive 128; keepalive_requests 100000000; }`;
}

export interface PeerProcesses {
  readonly backend: Child;
  readonly haproxyFront: Child;
  readonly haproxyMesh: Child;
  readonly nginxFront: Child;
  readonly nginxMesh: Child;
  readonly iperf: Child;
  readonly all: readonly Child[];
}

export function startBackends(folder: string, ports: Ports, core: string): Child[] {
  const body = "x".repeat(128);
  const config = nginxConfig(
    folder,
    "backend",
    `server { listen 127.0.0.1:${ports.backend} backlog=1024; location / { return 200 "${body}"; } }`,
  );
  writeFileSync(join(folder, "backend.conf"), config);
  return [
    spawn(["nginx", "-p", folder, "-c", join(folder, "backend.conf")], core),
    spawn(["iperf3", "-s", "-B", "127.0.0.1", "-p", String(ports.iperf)], core),
  ];
}

export function startPeers(folder: string, ports: Ports, loadCore: string): PeerProcesses {
  mkdirSync(folder, { recursive: true });
  makeCertificates(folder);
  const [backend, iperf] = startBackends(folder, ports, loadCore) as [Child, Child];
  const haproxy = haproxyConfig(folder, ports);
  writeFileSync(join(folder, "haproxy-front.cfg"), haproxy.front);
  writeFileSync(join(folder, "haproxy-mesh.cfg"), haproxy.mesh);
  const frontServers = `
  ${upstream("backend", ports.backend)}
  ${upstream("mesh", ports.nginxMesh)}
  server { listen 127.0.0.1:${ports.nginxPlain};
    location / { proxy_pass http://backend;${NGINX_HEADERS} } }
  server { listen 127.0.0.1:${ports.nginxFront};
    location / { proxy_pass https://mesh;${NGINX_HEADERS}
      proxy_ssl_certificate ${folder}/leaf.pem; proxy_ssl_certificate_key ${folder}/leaf.key;
      proxy_ssl_trusted_certificate ${folder}/root.pem; proxy_ssl_verify on;
      proxy_ssl_name leaf.bench; proxy_ssl_server_name on; proxy_ssl_protocols TLSv1.3; } }`;
  const meshServers = `
  ${upstream("backend", ports.backend)}
  server { listen 127.0.0.1:${ports.nginxMesh} ssl; ssl_protocols TLSv1.3;
    ssl_certificate ${folder}/leaf.pem; ssl_certificate_key ${folder}/leaf.key;
    ssl_client_certificate ${folder}/root.pem; ssl_verify_client on;
    location / { proxy_pass http://backend; proxy_set_header Connection "";
      proxy_set_header Host $host; } }`;
  writeFileSync(join(folder, "nginx-front.conf"), nginxConfig(folder, "nginx-front", frontServers));
  writeFileSync(join(folder, "nginx-mesh.conf"), nginxConfig(folder, "nginx-mesh", meshServers));
  const nginx = (name: string) =>
    spawn(["nginx", "-p", folder, "-c", join(folder, `${name}.conf`)], PROXY_CORE);
  const started = {
    backend,
    iperf,
    haproxyFront: spawn(["haproxy", "-db", "-f", join(folder, "haproxy-front.cfg")], PROXY_CORE),
    haproxyMesh: spawn(["haproxy", "-db", "-f", join(folder, "haproxy-mesh.cfg")], PROXY_CORE),
    nginxFront: nginx("nginx-front"),
    nginxMesh: nginx("nginx-mesh"),
  };
  return { ...started, all: Object.values(started) };
}
