import type { RequestHead } from "../http/message.ts";

/**
 * The body of a request as the application reads it. Nothing is read ahead: `wanted` is called
 * when the application asks for more, and `pushed` bytes answer that.
 */
export class RequestBody {
  readonly stream: ReadableStream<Uint8Array>;
  /** The application waits for the next piece. */
  wanted = false;
  /** The application has lost interest. */
  cancelled = false;
  #controller: ReadableStreamDefaultController<Uint8Array> | undefined;

  constructor(wanted: () => void) {
    this.stream = new ReadableStream<Uint8Array>(
      {
        start: (controller) => {
          this.#controller = controller;
        },
        pull: () => {
          this.wanted = true;
          wanted();
        },
        cancel: () => {
          this.cancelled = true;
          this.#controller = undefined;
        },
      },
      { highWaterMark: 0 },
    );
  }

  push(bytes: Uint8Array): void {
    this.wanted = false;
    // The stream hands its buffer over to whoever reads it, and ours holds other bytes too.
    this.#controller?.enqueue(bytes.slice());
  }

  finish(): void {
    this.#controller?.close();
    this.#controller = undefined;
  }

  fail(error: Error): void {
    this.#controller?.error(error);
    this.#controller = undefined;
  }
}

/** `fetch` allows no body here; what a client sends all the same is read and dropped. */
export function takesBody(head: RequestHead): boolean {
  return head.method !== "GET" && head.method !== "HEAD";
}

/**
 * The request for the application: hop-by-hop fields are cut, everything else is as sent.
 * @throws TypeError for a method or a target that no `Request` can have.
 */
export function toRequest(
  head: RequestHead,
  o: {
    readonly secure: boolean;
    readonly body: Uint8Array | RequestBody | undefined;
    readonly signal: AbortSignal;
  },
): Request {
  const origin = `${o.secure ? "https" : "http"}://${head.authority || "localhost"}`;
  const init: RequestInit = { method: head.method, headers: fieldsOf(head), signal: o.signal };
  if (o.body instanceof RequestBody) init.body = o.body.stream;
  else if (o.body !== undefined) init.body = o.body;
  return new Request(origin + pathOf(head.target), init);
}

function pathOf(target: string): string {
  if (target.startsWith("/")) return target;
  const scheme = target.indexOf("://");
  if (scheme < 0) return "/";
  const rest = target.slice(scheme + 3);
  const path = rest.search(/[/?]/);
  return path < 0 ? "/" : rest.slice(path);
}

function fieldsOf(head: RequestHead): Headers {
  const { text, cuts } = head;
  const headers = new Headers();
  const end = text.length - 2;
  let line = head.fieldsStart;
  let next = 0;
  while (line < end) {
    if (cuts[next] === line) {
      line = cuts[next + 1]!;
      next += 2;
      continue;
    }
    const colon = text.indexOf(":", line);
    const lineEnd = text.indexOf("\r\n", colon);
    headers.append(text.slice(line, colon), text.slice(colon + 1, lineEnd).trim());
    line = lineEnd + 2;
  }
  return headers;
}
