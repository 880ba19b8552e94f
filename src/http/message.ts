/**
 * What the rest of the proxy sees of an HTTP message. Heads keep their original text: a header
 * block that nothing edits is copied, not rebuilt.
 */
import type { Reason } from "../error.ts";

/** Offsets of one header line within a head's text, the line's CRLF excluded. */
export interface HeaderField {
  readonly name: string;
  readonly value: string;
}

/** The parts of a head that requests and responses share. */
export interface MessageHead {
  /** The whole head as latin1 text, from the start line to the final empty line inclusive. */
  readonly text: string;
  /** Offset in `text` of the first header line. */
  readonly fieldsStart: number;
  /** 0 or 1: the peer spoke HTTP/1.0 or HTTP/1.1. */
  readonly minor: number;
  /** Body length by Content-Length; -1 = absent. */
  readonly contentLength: number;
  readonly chunked: boolean;
  /** The connection may be reused after this message. */
  readonly keepAlive: boolean;
  /** The value of `Upgrade` where `Connection` nominates it. */
  readonly upgrade: string | undefined;
  /**
   * Offsets (start, end, start, end, …; ends include the CRLF) of lines that must not be
   * forwarded: hop-by-hop, nominated by Connection, framing, and weft's own. In ascending order.
   */
  readonly cuts: readonly number[];
  /** Lower-cased lookup of the first field of that name; for anything off the steady path. */
  field(name: string): string | undefined;
  /** All fields in order, names as sent. */
  fields(): HeaderField[];
}

export interface RequestHead extends MessageHead {
  readonly method: string;
  readonly target: string;
  /** Host header, or the authority of an absolute-form or CONNECT target; lower case. */
  readonly authority: string;
  readonly expectContinue: boolean;
  readonly requestId: string | undefined;
  readonly traceparent: string | undefined;
}

export interface ResponseHead extends MessageHead {
  readonly status: number;
  readonly statusText: string;
  /** `weft-reason` of a peer proxy, when it is one that is known; its line is among `cuts`. */
  readonly reason: Reason | undefined;
  /** Seconds of `Keep-Alive: timeout=`; -1 = absent. */
  readonly keepAliveTimeout: number;
}
