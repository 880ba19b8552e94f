/**
 * A shopper: asks for the front page at a steady rate (open loop: a slow answer delays no other
 * request) and keeps count. `GET /stats` on its own port, outside the mesh, tells the counts.
 */
const mesh = Bun.env["WEFT_PROXY"];
const perSecond = Number(Bun.env["RATE"] ?? 100);
const timeoutMs = 5000;

const stats = { sent: 0, ok: 0, failed: 0, errors: [] as string[], waiting: 0 };

async function shop(): Promise<void> {
  stats.sent++;
  stats.waiting++;
  try {
    const answer = await fetch(`${mesh}/`, {
      headers: { host: "frontend" },
      signal: AbortSignal.timeout(timeoutMs),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${answer.status} ${text}`);
    stats.ok++;
  } catch (error) {
    stats.failed++;
    if (stats.errors.length < 20) stats.errors.push(`${new Date().toISOString()} ${error}`);
  }
  stats.waiting--;
}

// Requests start with the first good answer: until then the mesh is still being set up.
while (
  !(await fetch(`${mesh}/`, { headers: { host: "frontend" } }).then(
    (a) => a.ok,
    () => false,
  ))
) {
  await Bun.sleep(100);
}

const started = performance.now();
let due = 0;
setInterval(() => {
  const elapsed = (performance.now() - started) / 1000;
  for (; due < elapsed * perSecond; due++) void shop();
}, 5);

Bun.serve({
  hostname: "127.0.0.1",
  port: Number(Bun.env["STATS_PORT"]),
  fetch: () => Response.json(stats),
});
