/** What the shop sells. */
const products = [
  { id: 1, name: "teapot", price: 18 },
  { id: 2, name: "kettle", price: 35 },
];

Bun.serve({
  hostname: "127.0.0.1",
  port: Number(Bun.env["PORT"]),
  routes: { "/products": () => Response.json(products), "/healthz": () => new Response("ok") },
});
