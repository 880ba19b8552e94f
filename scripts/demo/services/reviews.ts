/** Reviews, in the version that its environment names. */
const version = Bun.env["VERSION"] ?? "v1";
const stars = version === "v1" ? undefined : 5;

Bun.serve({
  hostname: "127.0.0.1",
  port: Number(Bun.env["PORT"]),
  routes: {
    "/reviews/:id": () => Response.json({ version, text: "Pours well.", stars }),
    "/healthz": () => new Response("ok"),
  },
});
