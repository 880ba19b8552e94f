import { CLASS, CR, LF, TOKEN, VALUE } from "./chars.ts";
import type { Intake } from "./intake.ts";
import type { H1Limits } from "./limits.ts";
import { Malformed } from "./malformed.ts";
import { filterTrailers } from "./trailers.ts";

const SEMICOLON = 59;
const QUOTE = 34;
const BACKSLASH = 92;
const EQUALS = 61;

/** Hexadecimal digits that stay below 2^53, leading zeros counted. */
const SIZE_DIGITS_MAX = 13;

const EMPTY = new Uint8Array(0);

type State =
  | "size"
  | "name"
  | "value"
  | "quoted"
  | "escaped"
  | "unquoted"
  | "size-lf"
  | "data"
  | "data-cr"
  | "data-lf"
  | "trailers";

/**
 * Decodes one chunked body (RFC 9112, section 7.1). Every CRLF is checked, extensions are bounded
 * and dropped, trailers are filtered.
 *
 *     size -> [name -> value] -> size-lf -> data -> data-cr -> data-lf -> size
 *                 value -> quoted <-> escaped; quoted -> unquoted, which is behind the quote
 *                                size-lf -> trailers (after the chunk of 0)
 */
export class ChunkedBody {
  body: Uint8Array = EMPTY;
  trailers = "";
  #state: State = "size";
  #size = 0;
  #digits = 0;
  #chunkExtensionBytes = 0;
  #messageExtensionBytes = 0;
  /** Nothing of the name or value has been read yet. */
  #blank = true;
  readonly #limits: H1Limits;

  constructor(limits: H1Limits) {
    this.#limits = limits;
  }

  reset(): void {
    this.#state = "size";
    this.#size = 0;
    this.#digits = 0;
    this.#chunkExtensionBytes = 0;
    this.#messageExtensionBytes = 0;
    this.trailers = "";
  }

  /** "body": `body` is set; "end": `trailers` is. @throws Malformed */
  next(intake: Intake): "more" | "body" | "end" {
    for (;;) {
      if (this.#state === "data") {
        if (intake.length === 0) return "more";
        this.body = intake.take(this.#size);
        this.#size -= this.body.length;
        if (this.#size === 0) this.#state = "data-cr";
        return "body";
      }
      if (this.#state === "trailers") return this.#readTrailers(intake);
      if (intake.length === 0) return "more";
      this.#frame(intake.bytes[intake.start++]!);
    }
  }

  #frame(code: number): void {
    switch (this.#state) {
      case "size":
        this.#readSize(code);
        return;
      case "name":
      case "value":
      case "quoted":
      case "escaped":
      case "unquoted":
        this.#readExtension(code);
        return;
      case "size-lf":
        if (code !== LF) throw new Malformed("chunk size is not followed by CRLF");
        this.#state = this.#size === 0 ? "trailers" : "data";
        return;
      case "data-cr":
        if (code !== CR) throw new Malformed("chunk is longer than its size");
        this.#state = "data-lf";
        return;
      case "data-lf":
        if (code !== LF) throw new Malformed("chunk is not followed by CRLF");
        this.#state = "size";
        this.#digits = 0;
        this.#chunkExtensionBytes = 0;
        return;
    }
  }

  #readSize(code: number): void {
    const digit = hexDigit(code);
    if (digit >= 0) {
      if (++this.#digits > SIZE_DIGITS_MAX) throw new Malformed("chunk size is too long");
      this.#size = this.#size * 16 + digit;
      return;
    }
    if (this.#digits === 0) throw new Malformed("chunk size is missing");
    if (code === CR) this.#state = "size-lf";
    else if (code === SEMICOLON) this.#part("name");
    else throw new Malformed("chunk size has an invalid character");
  }

  #part(state: "name" | "value"): void {
    this.#state = state;
    this.#blank = true;
  }

  #readExtension(code: number): void {
    const { chunkExtensionBytesMax, messageExtensionBytesMax } = this.#limits;
    if (code !== CR && ++this.#chunkExtensionBytes > chunkExtensionBytesMax) {
      throw new Malformed(`chunk extension is longer than ${chunkExtensionBytesMax} bytes`);
    }
    if (code !== CR && ++this.#messageExtensionBytes > messageExtensionBytesMax) {
      throw new Malformed(`chunk extensions are longer than ${messageExtensionBytesMax} bytes`);
    }
    switch (this.#state) {
      case "escaped":
        if ((CLASS[code]! & VALUE) === 0) throw new Malformed("chunk extension has a control byte");
        this.#state = "quoted";
        return;
      case "quoted":
        if ((CLASS[code]! & VALUE) === 0) throw new Malformed("chunk extension has an open quote");
        if (code === BACKSLASH) this.#state = "escaped";
        else if (code === QUOTE) this.#state = "unquoted";
        return;
      default:
        this.#readToken(code);
    }
  }

  /** A name, a value without quotes, or what ends either. */
  #readToken(code: number): void {
    const behind = this.#state === "unquoted";
    if ((CLASS[code]! & TOKEN) !== 0 && !behind) this.#blank = false;
    else if (this.#blank && this.#state === "value" && code === QUOTE) this.#state = "quoted";
    else if (this.#blank && !behind) throw new Malformed("chunk extension has no name or value");
    else if (code === CR) this.#state = "size-lf";
    else if (code === SEMICOLON) this.#part("name");
    else if (code === EQUALS && this.#state === "name") this.#part("value");
    else throw new Malformed("chunk extension has an invalid character");
  }

  #readTrailers(intake: Intake): "more" | "end" {
    const { bytes, start } = intake;
    if (intake.length === 0) return "more";
    if (bytes[start] === CR) {
      if (intake.length === 1) return "more";
      if (bytes[start + 1] !== LF) throw new Malformed("last chunk is not followed by CRLF");
      intake.start += 2;
      return "end";
    }
    const text = intake.takeHead(this.#limits.trailerBytesMax);
    if (text === undefined) return "more";
    this.trailers = filterTrailers(text, this.#limits);
    return "end";
  }
}

function hexDigit(code: number): number {
  if (code >= 48 && code <= 57) return code - 48;
  const lower = code | 0x20;
  return lower >= 97 && lower <= 102 ? lower - 87 : -1;
}
