/** One HTTP/1.1 connection to an endpoint: in use by one request, or kept for the next. */
import { ResponseDecoder } from "../http/h1/decode.ts";
import type { Connection, ConnectionHandler } from "../net/connection.ts";

/** The request that has the connection. */
export interface ClientUser {
  /** New bytes are in `client.decoder`. */
  onAnswer(client: HttpClient): void;
  /** What was queued towards the endpoint has been taken. */
  onClientDrain(client: HttpClient): void;
  /** The endpoint closed its side. */
  onClientEnd(client: HttpClient): void;
  onClientClosed(client: HttpClient, error: Error | undefined): void;
}

/** Where a connection comes from and returns to. */
export interface ClientHome {
  readonly name: string;
  /** Set where a proxy of the mesh is at the other end. */
  readonly mesh: object | undefined;
  active: number;
  /** Keeps a connection whose answer is complete. */
  put(client: HttpClient, now: number, idleLimitMs: number): void;
  /** The connection is gone. */
  forget(client: HttpClient): void;
}

export class HttpClient implements ConnectionHandler {
  readonly decoder = new ResponseDecoder();
  readonly connection: Connection;
  readonly endpoint: ClientHome;
  user: ClientUser | undefined;
  /** Requests that were answered on it before the one under way. */
  served = 0;
  /** A byte of the answer to the current request has arrived. */
  answered = false;
  idleSince = 0;
  idleLimitMs = 0;

  /** What it was opened with: after a rotation it is not used again. */
  readonly context: object | undefined;

  constructor(connection: Connection, endpoint: ClientHome, context: object | undefined) {
    this.context = context;
    this.connection = connection;
    this.endpoint = endpoint;
  }

  data(c: Connection, chunk: Uint8Array): void {
    const { user } = this;
    if (user === undefined) {
      // Nobody asked: these bytes must never become the answer to somebody else's request.
      c.destroy();
      return;
    }
    this.answered = true;
    this.decoder.push(chunk);
    user.onAnswer(this);
  }

  end(c: Connection): void {
    if (this.user === undefined) c.close();
    else this.user.onClientEnd(this);
  }

  drain(): void {
    this.user?.onClientDrain(this);
  }

  close(_c: Connection, error: Error | undefined): void {
    this.endpoint.forget(this);
    const { user } = this;
    this.user = undefined;
    user?.onClientClosed(this, error);
  }
}
