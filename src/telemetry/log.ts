/**
 * The process log: one line a record, JSON for machines or text for people.
 *
 * Secrets never enter by accident: the fields named in `HIDDEN` are masked whatever their value.
 */

export type LogLevel = "debug" | "info" | "warn" | "error";

export type LogFields = Readonly<Record<string, unknown>>;

export interface Logger {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  /** The same log with fields added to every record. */
  with(fields: LogFields): Logger;
}

/** Where a log goes. `level` may change while the process runs. */
export interface LogSink {
  readonly format: "json" | "text";
  level: LogLevel;
  readonly now: () => number;
  /** Takes one whole line, newline included. Must not throw. */
  readonly write: (line: string) => void;
  /** ANSI colours in text format. */
  readonly colour?: boolean;
}

const RANK: Readonly<Record<LogLevel, number>> = { debug: 0, info: 1, warn: 2, error: 3 };

const HIDDEN = new Set(["token", "secret", "password", "seed", "key", "authorization", "natsJwt"]);

const PAINT: Readonly<Record<LogLevel, string>> = {
  debug: "\x1b[2m",
  info: "\x1b[32m",
  warn: "\x1b[33m",
  error: "\x1b[31m",
};

export function createLogger(sink: LogSink, bound: LogFields = {}): Logger {
  const at = (level: LogLevel) => (message: string, fields?: LogFields) => {
    if (RANK[level] < RANK[sink.level]) return;
    const all = fields === undefined ? bound : { ...bound, ...fields };
    const line = sink.format === "json" ? jsonLine : textLine;
    sink.write(line(sink, level, message, all));
  };
  return {
    debug: at("debug"),
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
    with: (fields) => createLogger(sink, { ...bound, ...fields }),
  };
}

function jsonLine(sink: LogSink, level: LogLevel, message: string, fields: LogFields): string {
  const record: Record<string, unknown> = {
    time: new Date(sink.now()).toISOString(),
    level,
    msg: message,
  };
  for (const [name, value] of Object.entries(fields)) {
    if (value !== undefined) record[name] = shown(name, value);
  }
  try {
    return `${jsonText(record)}\n`;
  } catch {
    // A cycle or a bigint must cost the fields, not the message.
    return `${JSON.stringify({ time: record["time"], level, msg: message, fields: "unprintable" })}\n`;
  }
}

function textLine(sink: LogSink, level: LogLevel, message: string, fields: LogFields): string {
  const time = new Date(sink.now()).toISOString().slice(11, 23);
  const name = level.toUpperCase().padEnd(5);
  const label = sink.colour ? `${PAINT[level]}${name}\x1b[0m` : name;
  let line = `${time} ${label} ${printable(message)}`;
  for (const [key, value] of Object.entries(fields)) {
    if (value === undefined) continue;
    line += ` ${key}=${quoted(shown(key, value))}`;
  }
  return `${line}\n`;
}

const UNPRINTABLE = /[\p{Cc}\u2028\u2029]/gu;

/** Control characters as escapes: callers must not be able to write lines or move a cursor. */
function printable(text: string): string {
  return text.replace(UNPRINTABLE, (char) => {
    return `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
}

/** JSON that holds no control character, not even those from 0x7f on. Throws like `stringify`. */
export function jsonText(value: unknown): string {
  return printable(JSON.stringify(value) ?? String(value));
}

function shown(name: string, value: unknown): unknown {
  if (HIDDEN.has(name)) return "***";
  if (value instanceof Error) return messageOf(value);
  return value;
}

/** An error's message with its causes, one line. */
export function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause === undefined ? error.message : `${error.message}: ${messageOf(error.cause)}`;
}

function quoted(value: unknown): string {
  if (typeof value !== "string") {
    try {
      return jsonText(value);
    } catch {
      return printable(String(value));
    }
  }
  return /^[^\s"=\p{Cc}]+$/u.test(value) ? value : jsonText(value);
}
