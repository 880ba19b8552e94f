/**
 * A WebSocket server and client by a library that others wrote, run by node as programs of their own:
 *
 *   node websocket.mjs server PORT             echoes; answers /refused with 403; says "ready"
 *   node websocket.mjs client PORT HOST COUNT  sends frames, wants each back in order, and exits 0
 *   node websocket.mjs refused PORT HOST       exits 0 when the upgrade is refused with 403
 */
import { createServer } from "node:http";
import { WebSocket, WebSocketServer } from "ws";

const [role, port, host, count] = process.argv.slice(2);

function serve() {
  const server = createServer((request, response) => response.end(`plain ${request.url}`));
  const sockets = new WebSocketServer({ noServer: true });
  server.on("upgrade", (request, socket, head) => {
    if (request.url === "/refused") {
      const answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
      socket.end(answer);
      return;
    }
    sockets.handleUpgrade(request, socket, head, (client) => {
      client.on("message", (data, binary) => client.send(data, { binary }));
    });
  });
  server.listen(Number(port), "127.0.0.1", () => console.log("ready"));
}

/** Different lengths, text and binary by turns. */
function frame(index) {
  const text = `${index}:${"x".repeat(index % 300)}`;
  return index % 2 === 0 ? text : Buffer.from(text);
}

function talk() {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/echo`, { headers: { host } });
  const total = Number(count);
  let sent = 0;
  let seen = 0;
  const fill = () => {
    while (sent < total && sent - seen < 256) socket.send(frame(sent++));
  };
  socket.on("open", fill);
  socket.on("message", (data, binary) => {
    const expected = frame(seen);
    if (binary !== Buffer.isBuffer(expected) || data.toString() !== expected.toString()) {
      console.error(`frame ${seen} is wrong`);
      process.exit(1);
    }
    if (++seen === total) socket.close(1000, "done");
    else fill();
  });
  socket.on("close", (code) => {
    console.log(JSON.stringify({ seen, code }));
    process.exit(seen === total && code === 1000 ? 0 : 1);
  });
  socket.on("error", (error) => console.error(error.message));
}

function beRefused() {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/refused`, { headers: { host } });
  socket.on("unexpected-response", (_request, response) => {
    process.exit(response.statusCode === 403 ? 0 : 1);
  });
  socket.on("open", () => process.exit(1));
  socket.on("error", () => process.exit(1));
}

({ server: serve, client: talk, refused: beRefused })[role]();
