/** The shop's front page: asks three services, none of whose addresses it knows. */
const mesh = Bun.env["WEFT_PROXY"];

async function ask(service: string, path: string, init: RequestInit = {}): Promise<Response> {
  const answer = await fetch(`${mesh}${path}`, { ...init, headers: { host: service } });
  if (!answer.ok) throw new Error(`${service}${path}: ${answer.status} ${await answer.text()}`);
  return answer;
}

Bun.serve({
  hostname: "127.0.0.1",
  port: Number(Bun.env["PORT"]),
  async fetch(request) {
    if (new URL(request.url).pathname === "/healthz") return new Response("ok");
    try {
      const [products, reviews, order] = await Promise.all([
        ask("catalogue", "/products").then((answer) => answer.json()),
        ask("reviews", "/reviews/1").then((answer) => answer.json()),
        ask("orders", "/orders", { method: "POST", body: "1 × teapot" }).then((a) => a.json()),
      ]);
      return Response.json({ products, reviews, order });
    } catch (error) {
      return new Response(String(error), { status: 502 });
    }
  },
});
