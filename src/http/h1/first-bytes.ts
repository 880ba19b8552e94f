/**
 * Whether a caller's first bytes are an HTTP/1.x request: read byte by byte, so that the answer
 * does not depend on how they arrive. Only requests to a server count. Those to a forward proxy
 * (CONNECT, absolute form), TLS and HTTP/2 are something else: their bytes must stay as they are.
 */

/** "more": both are still possible. */
export type FirstBytesVerdict = "http" | "other" | "more";

/** Methods are told from the words of other protocols by a list; those of others are not HTTP. */
const METHODS: ReadonlySet<string> = new Set(
  (
    "GET HEAD POST PUT DELETE OPTIONS TRACE PATCH QUERY PURGE LINK UNLINK SEARCH REPORT NOTIFY " +
    "SUBSCRIBE UNSUBSCRIBE PROPFIND PROPPATCH MKCOL MKCALENDAR COPY MOVE LOCK UNLOCK ACL BIND " +
    "UNBIND REBIND MERGE CHECKIN CHECKOUT UNCHECKOUT MKACTIVITY MKWORKSPACE UPDATE LABEL " +
    "VERSION-CONTROL BASELINE-CONTROL ORDERPATCH"
  ).split(" "),
);
const PREFIXES: ReadonlySet<string> = new Set(
  [...METHODS].flatMap((method) => Array.from(method, (_, i) => method.slice(0, i + 1))),
);
const VERSION = "HTTP/1.";
/** A target this long belongs to nothing else. */
const TARGET_MAX = 8 * 1024;

const SPACE = 0x20;
const DELETE = 0x7f;

export class FirstBytes {
  #verdict: FirstBytesVerdict = "more";
  #part: "method" | "slash" | "target" | "version" = "method";
  #method = "";
  /** Characters of the part so far. */
  #length = 0;
  #asterisk = false;

  /** The verdict with these bytes; once it is not "more" it stays. */
  push(chunk: Uint8Array): FirstBytesVerdict {
    for (let i = 0; i < chunk.length && this.#verdict === "more"; i++) {
      this.#verdict = this.#step(chunk[i]!);
    }
    return this.#verdict;
  }

  #step(byte: number): FirstBytesVerdict {
    switch (this.#part) {
      case "method":
        return this.#stepMethod(byte);
      case "slash":
        this.#asterisk = byte === 0x2a && this.#method === "OPTIONS";
        this.#part = "target";
        return byte === 0x2f || this.#asterisk ? "more" : "other";
      case "target":
        return this.#stepTarget(byte);
      case "version":
        if (byte !== VERSION.charCodeAt(this.#length++)) return "other";
        return this.#length === VERSION.length ? "http" : "more";
    }
  }

  #stepMethod(byte: number): FirstBytesVerdict {
    if (byte === SPACE) {
      this.#part = "slash";
      return METHODS.has(this.#method) ? "more" : "other";
    }
    this.#method += String.fromCharCode(byte);
    return PREFIXES.has(this.#method) ? "more" : "other";
  }

  #stepTarget(byte: number): FirstBytesVerdict {
    if (byte === SPACE) {
      this.#part = "version";
      this.#length = 0;
      return "more";
    }
    // What is not ASCII is for the codec to refuse: nothing else starts like this.
    if (byte < SPACE || byte === DELETE || this.#asterisk) return "other";
    return ++this.#length >= TARGET_MAX ? "http" : "more";
  }
}
