/**
 * Callers of the outbound port that speak TLS themselves: their ClientHello names the service or
 * host, and all their bytes go there as they are. Nothing is decrypted; who answers is the
 * caller's to verify.
 */
import type { Reason } from "../error.ts";
import { ALERTS, TLS_HANDSHAKE } from "../net/alert.ts";
import { guarded } from "../net/boundary.ts";
import { HELLO_BYTES_MAX, readClientHello } from "../net/client-hello.ts";
import type { Connection, ConnectionHandler } from "../net/connection.ts";
import type { Target, UpstreamPort, UpstreamService } from "../snapshot/snapshot.ts";
import type { Outbound } from "./http.ts";
import type { Ticking } from "./state.ts";
import { tunnelToService } from "./tcp.ts";

/** From the first byte of a hello to a destination. */
const OPENING_SECONDS = 10;
const HTTPS = 443;

/** Leaves the caller to `http` unless its first byte is that of a TLS client. */
export class ByFirstByte implements ConnectionHandler {
  readonly #http: ConnectionHandler;
  readonly #side: Outbound;

  constructor(http: ConnectionHandler, side: Outbound) {
    this.#http = http;
    this.#side = side;
  }

  data(c: Connection, chunk: Uint8Array): void {
    if (chunk[0] === TLS_HANDSHAKE) {
      this.#http.close(c, undefined);
      c.handler = new Hello(c, this.#side);
    } else c.handler = this.#http;
    c.handler.data(c, chunk);
  }

  end(c: Connection): void {
    this.#http.end(c);
  }

  drain(c: Connection): void {
    this.#http.drain(c);
  }

  close(c: Connection, error: Error | undefined): void {
    this.#http.close(c, error);
  }
}

/** A caller whose hello is being read, or whose destination is being found. */
class Hello implements ConnectionHandler, Ticking {
  readonly direction = "outbound";
  readonly #caller: Connection;
  readonly #side: Outbound;
  #bytes: Uint8Array = new Uint8Array(0);
  #read = false;
  #over = false;
  #seconds = 0;

  constructor(caller: Connection, side: Outbound) {
    this.#caller = caller;
    this.#side = side;
    side.state.open.add(this);
  }

  get workload(): string {
    return this.#side.local.name;
  }

  data(c: Connection, chunk: Uint8Array): void {
    this.#bytes = this.#bytes.length === 0 ? chunk : Buffer.concat([this.#bytes, chunk]);
    c.kept = this.#bytes.length;
    if (this.#read) return;
    const hello = readClientHello(this.#bytes);
    if (hello.kind === "hello") {
      this.#read = true;
      c.pause();
      this.#route(hello.serverName);
    } else if (hello.kind === "malformed" || this.#bytes.length > HELLO_BYTES_MAX) {
      this.#refuse("bad_request", ALERTS.decodeError);
    }
  }

  #route(name: string): void {
    const { local } = this.#side;
    if (name === "") {
      this.#refuse("bad_request", ALERTS.missingExtension);
      return;
    }
    // A server name has no port.
    const found = name.includes(":") ? undefined : local.view?.authorities.resolve(name);
    switch (found?.kind) {
      case "service":
      case "ambiguous_port":
      case "no_port":
        this.#toService(found.service);
        return;
      case "unknown": {
        const { namespace, service, certain, host } = found;
        local.learn(namespace, service, (known) => {
          this.#later(() => {
            if (known) this.#route(name);
            else if (certain) this.#refuse("no_route", ALERTS.unrecognizedName);
            else this.#outside(host);
          });
        });
        return;
      }
      case "outside":
        this.#outside(found.host);
        return;
      default:
        this.#refuse("no_route", ALERTS.unrecognizedName);
    }
  }

  #toService(service: UpstreamService): void {
    const port = tlsPort(service);
    if (port === "ambiguous") this.#refuse("ambiguous_port", ALERTS.unrecognizedName);
    else if (port === undefined) this.#refuse("no_route", ALERTS.unrecognizedName);
    else this.#tunnel(port.target);
  }

  #outside(host: string): void {
    const { local, outside } = this.#side;
    if (local.view?.snapshot.mesh.outbound !== "ALLOW_ANY") {
      this.#refuse("no_route", ALERTS.unrecognizedName);
      return;
    }
    outside.find(host, HTTPS).then((found) => {
      this.#later(() => {
        if (found.kind === "target") this.#tunnel(found.target);
        else this.#refuse("no_route", ALERTS.unrecognizedName);
      });
    });
  }

  /** Comes back to a caller whose destination took time to find, unless it is gone. */
  #later(run: () => void): void {
    if (!this.#over) guarded("sni", this.#caller, run);
  }

  #tunnel(target: Target): void {
    const { state, local } = this.#side;
    const caller = this.#caller;
    this.#leave();
    caller.handler = tunnelToService(caller, local.upstreams.destination(target), {
      ...{ state, direction: "outbound", workload: local.name },
      opened: () => this.#bytes,
      failed: () => {
        caller.write(ALERTS.internalError);
        caller.close();
      },
    });
  }

  #refuse(reason: Reason, alert: Uint8Array): void {
    const { state } = this.#side;
    const { workload } = this;
    this.#leave();
    const nowhere = { peer: "", port: "", subset: "", tls: "none" } as const;
    state.golden
      .tcpMeter({ direction: "outbound", workload, source: workload, ...nowhere })
      .record(reason);
    this.#caller.write(alert);
    this.#caller.close();
  }

  #leave(): void {
    this.#over = true;
    this.#side.state.open.delete(this);
  }

  end(c: Connection): void {
    // Before its destination is known a caller is owed nothing.
    this.#leave();
    c.close();
  }

  drain(): void {}

  close(): void {
    this.#leave();
  }

  tick(): void {
    if (++this.#seconds > OPENING_SECONDS) this.#refuse("timeout", ALERTS.internalError);
  }

  get pendingBytes(): number {
    return this.#caller.pendingBytes;
  }

  get idle(): boolean {
    return !this.#read;
  }

  shut(force: boolean): void {
    if (force) this.#caller.destroy();
    else if (this.idle) this.#caller.close();
  }
}

/** The port whose callers bring TLS: the one declared tls, else the opaque one; of several 443. */
function tlsPort(service: UpstreamService): UpstreamPort | "ambiguous" | undefined {
  const ports = [...service.ports.values()].filter(({ policy }) => policy.tls === undefined);
  for (const wanted of ["tls", "tcp"]) {
    const fitting = ports.filter(({ protocol }) => protocol === wanted);
    if (fitting.length === 0) continue;
    if (fitting.length === 1) return fitting[0];
    return fitting.find(({ port }) => port === HTTPS) ?? "ambiguous";
  }
  return undefined;
}
