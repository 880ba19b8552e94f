/** One message on its way out: its head leaves together with the first piece of its body. */
import { CRLF, chunkPrefix, lastChunk } from "../http/h1/encode.ts";
import type { Connection } from "../net/connection.ts";

export class MessageWriter {
  #head = "";
  #chunked = false;

  /** The head has not been sent yet. */
  get pending(): boolean {
    return this.#head !== "";
  }

  /** `chunked`: the body is framed here; otherwise its bytes go out as they are. */
  begin(head: string, chunked: boolean): void {
    this.#head = head;
    this.#chunked = chunked;
  }

  clear(): void {
    this.#head = "";
    this.#chunked = false;
  }

  /** Sends what is there, in one write. False: wait for the connection's `drain`. */
  send(to: Connection, body: Uint8Array | undefined, last: boolean, trailers: string): boolean {
    let before = this.#head;
    let after = "";
    this.#head = "";
    if (this.#chunked) {
      if (body !== undefined) {
        before += chunkPrefix(body.length);
        after = CRLF;
      }
      if (last) after += lastChunk(trailers);
    }
    if (before === "" && body === undefined && after === "") return true;
    return to.writeFramed(before, body, after);
  }
}
