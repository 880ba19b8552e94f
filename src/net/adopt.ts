/**
 * Gives an accepted socket handlers of its own. All sockets of a Bun listener share one set, and
 * after a TLS upgrade the raw socket's `data` would go on getting a copy of all ciphertext: a
 * fifth of the CPU of a bulk receiver (measured). So the descriptor moves to a socket without it.
 */
import { dlopen } from "bun:ffi";
import { type BunSocket, bunAdopt, type Silent } from "./bun-socket.ts";

const { symbols: libc } = dlopen("libc.so.6", {
  fcntl: { args: ["i32", "i32", "i32"], returns: "i32" },
  close: { args: ["i32"], returns: "i32" },
});

/** The lowest free descriptor, not inherited by children (fcntl(2)). */
const F_DUPFD_CLOEXEC = 1030;

/**
 * Moves the connection of `socket` to a new socket, which is given to `handlers.open`; `socket`
 * itself closes, without a word to the peer. Bytes already read must travel in `data`.
 * `failed` is called when no descriptor is left.
 */
export function adopt<Data>(
  socket: BunSocket<unknown> & { readonly fd: number },
  data: Data,
  handlers: Silent<Data>,
  failed: () => void,
): void {
  const fd = libc.fcntl(socket.fd, F_DUPFD_CLOEXEC, 0);
  if (fd < 0) {
    failed();
    return;
  }
  socket.end();
  bunAdopt({ fd, allowHalfOpen: true, data, socket: handlers }).catch(() => {
    libc.close(fd);
    failed();
  });
}
