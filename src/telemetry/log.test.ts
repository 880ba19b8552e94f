import { describe, expect, test } from "bun:test";
import { createLogger, type LogLevel, messageOf } from "./log.ts";

function collect(format: "json" | "text", level: LogLevel = "info") {
  const lines: string[] = [];
  const sink = { format, level, now: () => 0, write: (line: string) => void lines.push(line) };
  return { lines, sink, log: createLogger(sink) };
}

describe("log", () => {
  test("writes one JSON object a line, with bound fields", () => {
    const { lines, log } = collect("json");
    log.with({ workload: "default/cart" }).info("ready", { port: 17006, skipped: undefined });
    expect(lines).toHaveLength(1);
    expect(JSON.parse(lines[0]!)).toEqual({
      time: "1970-01-01T00:00:00.000Z",
      level: "info",
      msg: "ready",
      workload: "default/cart",
      port: 17006,
    });
  });

  test("text quotes what a shell could not read back, newlines included", () => {
    const { lines, log } = collect("text");
    log.warn("odd", { plain: "a-b:1", spaced: "a b", forged: "x\ny" });
    expect(lines[0]).toBe('00:00:00.000 WARN  odd plain=a-b:1 spaced="a b" forged="x\\ny"\n');
  });

  test("log injection: no control character of a message or a value is written as it is", () => {
    const hostile = "a\r\nb\x1b[31m\x7f\x9b31m\u2028";
    for (const format of ["text", "json"] as const) {
      const { lines, log } = collect(format);
      log.error(`refused: ${hostile}`, { value: hostile, list: [hostile] });
      expect(lines).toHaveLength(1);
      expect(lines[0]).toMatch(/^[^\p{Cc}\u2028]+\n$/u);
    }
  });

  test("the level can be changed while running", () => {
    const { lines, sink, log } = collect("json");
    log.debug("no");
    sink.level = "debug";
    log.debug("yes");
    expect(lines).toHaveLength(1);
  });

  test("masks secrets by name and shows an error with its cause", () => {
    const { lines, log } = collect("text");
    log.error("failed", { token: "weft_abc", error: new Error("a", { cause: new Error("b") }) });
    expect(lines[0]).toEndWith('token=*** error="a: b"\n');
    expect(messageOf("text")).toBe("text");
  });

  test("unprintable fields cost the fields, not the message", () => {
    const { lines, log } = collect("json");
    log.info("big", { n: 1n });
    expect(JSON.parse(lines[0]!)).toMatchObject({ msg: "big", fields: "unprintable" });
  });
});
