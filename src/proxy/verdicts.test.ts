import { expect, test } from "bun:test";
import { Verdicts } from "./verdicts.ts";

test("a verdict holds for a minute since it was last seen", () => {
  let now = 0;
  const verdicts = new Verdicts(() => now);
  verdicts.put("a", "http");
  now = 50_000;
  expect(verdicts.get("a")).toBe("http");
  verdicts.put("a", "server_first");
  now = 109_999;
  expect(verdicts.get("a")).toBe("server_first");
  now = 110_000;
  expect(verdicts.get("a")).toBeUndefined();
});

test("as many as fit are kept", () => {
  const verdicts = new Verdicts(() => 0);
  for (let i = 0; i < 4096; i++) verdicts.put(`port ${i}`, "http");
  verdicts.put("port 0", "server_first");
  expect(verdicts.get("port 4095")).toBe("http");
  verdicts.put("another", "http");
  expect(verdicts.get("another")).toBe("http");
  expect(verdicts.get("port 0")).toBeUndefined();
});
