/** Takes orders and numbers them with a counter in redis, reached through the mesh as plain TCP. */
import { RedisClient } from "bun";

const redis = new RedisClient(Bun.env["REDIS_URL"]);

Bun.serve({
  hostname: "127.0.0.1",
  port: Number(Bun.env["PORT"]),
  routes: {
    "/orders": {
      POST: async (request) => {
        const item = await request.text();
        return Response.json({ number: await redis.incr("orders"), item });
      },
    },
    "/healthz": () => new Response("ok"),
  },
});
