import { expect, test } from "bun:test";
import { childEnvironment, dropInherited, refuseUnsafe, stateFolder } from "./environment.ts";

test("certificate checks cannot be switched off from outside", () => {
  expect(() => refuseUnsafe({ NODE_TLS_REJECT_UNAUTHORIZED: "0" })).toThrow("certificate checks");
  refuseUnsafe({ NODE_TLS_REJECT_UNAUTHORIZED: "1" });
});

test("children get neither tokens nor injection", () => {
  const env = { PATH: "/bin", WEFT_TOKEN_FILE: "x", WEFT_JOIN_TOKEN: "y", BUN_OPTIONS: "z" };
  expect(childEnvironment(env, { PORT: "1" })).toEqual({ PATH: "/bin", PORT: "1" });
  const own: Record<string, string | undefined> = {
    BUN_BE_BUN: "1",
    BUN_OPTIONS: "z",
    A: "b",
    http_proxy: "x",
  };
  dropInherited(own);
  expect(own).toEqual({ A: "b" });
});

test("state folder follows XDG, then root, then home", () => {
  expect(stateFolder({ XDG_STATE_HOME: "/s" }, 0)).toBe("/s/weft");
  expect(stateFolder({}, 0)).toBe("/var/lib/weft");
  expect(stateFolder({ HOME: "/home/u" }, 1000)).toBe("/home/u/.local/state/weft");
  expect(() => stateFolder({}, 1000)).toThrow("HOME");
});
