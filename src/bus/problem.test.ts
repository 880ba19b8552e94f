import { expect, test } from "bun:test";
import { ErrorCode, NatsError } from "nats";
import { explainLink, explainWrites, ForeignServer } from "./problem.ts";

const at = "nats://10.0.0.2:4222";

test.each([
  ["bus_old", new NatsError("503", ErrorCode.NoResponders)],
  ["bus_denied", new NatsError("'Authorization Violation'", ErrorCode.AuthorizationViolation)],
  ["bus_denied", new NatsError("expired", ErrorCode.AuthenticationExpired)],
  ["bus_away", NatsError.errorForCode(ErrorCode.ConnectionRefused)],
  ["bus_plain", new NatsError("tls", ErrorCode.ServerOptionNotAvailable)],
  ["bus_untrusted", new Error("self signed certificate")],
  ["bus_untrusted", new Error("unable to get local issuer certificate")],
  ["bus_name", new Error("Hostname/IP does not match certificate's altnames: Host: x.")],
  ["bus_open", new ForeignServer("$G")],
  ["bus_away", new NatsError("TIMEOUT", ErrorCode.Timeout)],
  ["bus_away", ""],
] as const)("%s: where it is, and a next step", (code, error) => {
  const failure = explainLink(error, at, true);
  expect(failure.code).toBe(code);
  expect(failure.message).toContain(at);
  expect(failure.message).not.toMatch(/[\n\r]/);
  expect(failure.fix).not.toBe("");
});

test("of a server of our own, nothing is asked that an operator cannot do", () => {
  const denied = new NatsError("'Authorization Violation'", ErrorCode.AuthorizationViolation);
  expect(explainLink(denied, at, false).fix).not.toContain("nats config");
  expect(explainWrites(new Error("no space"), at, false).code).toBe("bus_stuck");
});
