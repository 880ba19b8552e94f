import { describe, expect, test } from "bun:test";
import { Failure } from "../src/error.ts";
import {
  readAddress,
  readAppPort,
  readAppPorts,
  readDuration,
  readLabels,
  readLifetime,
  readLocality,
  readOutboundAddress,
  readRanges,
  readUpstream,
  readUpstreams,
  readWorkload,
} from "./grammar.ts";

function failure(run: () => unknown): Failure {
  try {
    run();
  } catch (error) {
    if (error instanceof Failure) return error;
    throw error;
  }
  throw new Error("expected a Failure");
}

describe("--app", () => {
  const local = { host: "127.0.0.1" };
  test.each([
    ["8080", { servicePort: 8080, ...local, port: 8080 }],
    ["80=8080", { servicePort: 80, ...local, port: 8080 }],
    ["10.1.2.3:8080", { servicePort: 8080, host: "10.1.2.3", port: 8080 }],
    ["[::1]:8080/tcp", { servicePort: 8080, host: "::1", port: 8080, protocol: "tcp" }],
    ["80=db.local:8080/grpc", { servicePort: 80, host: "db.local", port: 8080, protocol: "grpc" }],
  ])("%s", (text, want) => {
    expect(readAppPort(text, "--app")).toEqual(want as ReturnType<typeof readAppPort>);
  });

  test.each([
    "",
    "x",
    "0",
    "65536",
    "80=",
    "=80",
    ":80",
    "80/",
    "80/HTTP",
    "1:2:3",
    "a b:80",
    "-1",
  ])("refuses %p and names the flag and the fix", (text) => {
    const refused = failure(() => readAppPort(text, "--app"));
    expect(refused.exit).toBe(2);
    expect(refused.message).toStartWith("--app: ");
    expect(refused.fix).not.toBe("");
  });

  test("a lone port speaks HTTP; several are detected unless they say", () => {
    expect(readAppPorts(["8080"], "--app")[0]!.protocol).toBe("http");
    expect(readAppPorts(["8080", "9090"], "--app")[0]!.protocol).toBeUndefined();
  });

  test("the same service port twice is refused", () => {
    expect(failure(() => readAppPorts(["80=1", "80=2"], "--app")).message).toContain("twice");
  });
});

describe("--upstream", () => {
  test.each([
    ["db:9191", { service: "db", listenPort: 9191 }],
    ["db.shop:9191", { service: "db", namespace: "shop", listenPort: 9191 }],
    ["db/5432:9191", { service: "db", servicePort: 5432, listenPort: 9191 }],
    [
      "db.shop/5432:9191",
      { service: "db", namespace: "shop", servicePort: 5432, listenPort: 9191 },
    ],
  ])("%s", (text, want) => {
    expect(readUpstream(text, "--upstream")).toEqual(want);
  });

  test.each(["db", "db:", ":1", "db:x", "DB:1", "db.a.b:1", "db/x:1", "db:1:2", "-a:1"])(
    "refuses %p",
    (text) => {
      expect(failure(() => readUpstream(text, "--upstream")).exit).toBe(2);
    },
  );

  test("one local port cannot lead to two services", () => {
    expect(failure(() => readUpstreams(["a:1", "b:1"], "--upstream")).message).toContain("a and");
  });
});

describe("--workload", () => {
  test("takes a service with its ports", () => {
    expect(readWorkload("cart=8080", "--workload")).toEqual({
      service: "cart",
      app: [{ servicePort: 8080, host: "127.0.0.1", port: 8080, protocol: "http" }],
    });
    expect(readWorkload("db.shop=10.0.0.5:5432/tcp,9000", "--workload")).toEqual({
      service: "db",
      namespace: "shop",
      app: [
        { servicePort: 5432, host: "10.0.0.5", port: 5432, protocol: "tcp" },
        { servicePort: 9000, host: "127.0.0.1", port: 9000 },
      ],
    });
  });

  test.each(["cart", "=80", "cart=", "cart=x", "a.b.c=1"])("refuses %p", (text) => {
    expect(failure(() => readWorkload(text, "--workload")).exit).toBe(2);
  });
});

describe("the rest", () => {
  test("durations are milliseconds", () => {
    expect(readDuration("1h30m", "--x")).toBe(5_400_000);
    expect(readDuration("250ms", "--x")).toBe(250);
    for (const bad of ["", "5", "5 s", "s", "-5s", "1d"]) {
      expect(failure(() => readDuration(bad, "--x")).exit).toBe(2);
    }
    expect(readLifetime("6s", "--x")).toBe(6_000);
    for (const bad of ["0s", "999ms", "8761h"]) {
      expect(failure(() => readLifetime(bad, "--x")).exit).toBe(2);
    }
  });

  test("labels", () => {
    expect(readLabels(["version=v2", "a.b/c="], "--label")).toEqual({ version: "v2", "a.b/c": "" });
    expect(failure(() => readLabels(["a=1", "a=2"], "--label")).message).toContain("twice");
    expect(failure(() => readLabels(["a"], "--label")).fix).toContain("version=v2");
  });

  test("an outbound address is loopback", () => {
    expect(readOutboundAddress("127.0.17.2:17001", "out")).toEqual({
      host: "127.0.17.2",
      port: 17001,
    });
    expect(failure(() => readOutboundAddress("0.0.0.0:1", "out")).message).toContain("loopback");
  });
});

test("ranges of addresses", () => {
  expect(readRanges(["127.0.0.2", "10.0.0.0/8", "::1/128"], "x")).toHaveLength(3);
  for (const bad of ["", "10.0.0.0/33", "localhost", "10.0.0/8"]) {
    expect(failure(() => readRanges([bad], "--accept-proxy-protocol")).message).toContain(
      "is no range of addresses",
    );
  }
});

test("addresses are numbers: a name would be found out only by the registry", () => {
  expect(readAddress("::1", "--bind")).toBe("::1");
  for (const bad of ["localhost", "300.1.1.1", "foo bar", "10.0.0.1:80", ""]) {
    const { message, exit } = failure(() => readAddress(bad, "--advertise"));
    expect(message).toBe(`--advertise: "${bad}" is not an IP address`);
    expect(exit).toBe(2);
  }
});

test("a locality has one to three parts", () => {
  expect(readLocality("eu-1/a/rack7", "--locality")).toBe("eu-1/a/rack7");
  for (const bad of ["a/b/c/d", "EU", "a//b", "/"]) {
    expect(failure(() => readLocality(bad, "--locality")).fix).toContain("eu-1/zone-a");
  }
});
