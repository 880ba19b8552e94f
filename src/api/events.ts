/** Server-sent events: a stream that a slow or vanished reader cannot make grow. */

import { refusal } from "./problem.ts";

/** One event; `id` lets a reader tell what it has seen. */
export interface Event {
  readonly event: string;
  readonly id?: string;
  readonly data: unknown;
}

/** Streams of one API at once; each is asked for news twice a second. */
const STREAMS_MAX = 100;
const LOOK_MS = 500;
/** A comment this often keeps the connection from looking idle. */
const COMMENT_MS = 15_000;

/** The streams that are open now. */
export type OpenStreams = Set<object>;

/**
 * Asks `next` for news twice a second until the reader goes away; [] is no news.
 *
 * @throws Failure `too_many_watchers` (503).
 */
export function eventStream(
  open: OpenStreams,
  signal: AbortSignal,
  next: () => readonly Event[],
): Response {
  if (open.size >= STREAMS_MAX) {
    const message = `${open.size} watchers are connected already`;
    throw refusal(503, "too_many_watchers", message, "close one, or ask again and again instead");
  }
  let timer: ReturnType<typeof setInterval> | undefined;
  const encoder = new TextEncoder();
  const stop = () => {
    clearInterval(timer);
    open.delete(next);
  };
  open.add(next);
  const stream = new ReadableStream<Uint8Array>({
    start(controller) {
      let silentMs = 0;
      const look = () => {
        // A reader that does not read gets the newest state once it reads again.
        if (signal.aborted) return stop();
        if ((controller.desiredSize ?? 0) <= 0) return;
        try {
          const events = next();
          silentMs = events.length > 0 ? 0 : silentMs + LOOK_MS;
          for (const event of events) controller.enqueue(encoder.encode(eventText(event)));
          if (silentMs >= COMMENT_MS) {
            silentMs = 0;
            controller.enqueue(encoder.encode(": still here\n\n"));
          }
        } catch (error) {
          stop();
          controller.error(error);
        }
      };
      look();
      timer = setInterval(look, LOOK_MS);
      signal.addEventListener("abort", stop, { once: true });
    },
    cancel: stop,
  });
  return new Response(stream, {
    headers: { "content-type": "text/event-stream", "cache-control": "no-store" },
  });
}

function eventText({ event, id, data }: Event): string {
  const head = id === undefined ? "" : `id: ${id}\n`;
  return `${head}event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
}
