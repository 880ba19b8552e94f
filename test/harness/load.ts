/** Steady load from inside a test, which remembers every failure. */
export interface Load {
  readonly sent: number;
  readonly ok: number;
  readonly failures: readonly string[];
  stop(): Promise<void>;
}

/** `concurrency` loops that call `request` without a pause, at most `perSecond` in all. */
export function load(
  request: () => Promise<Response>,
  options: { readonly concurrency?: number; readonly perSecond?: number } = {},
): Load {
  const concurrency = options.concurrency ?? 4;
  const gapMs = (1000 * concurrency) / (options.perSecond ?? 200);
  const failures: string[] = [];
  const state = { sent: 0, ok: 0, running: true };
  const loops = Array.from({ length: concurrency }, async () => {
    while (state.running) {
      const started = performance.now();
      state.sent++;
      try {
        const response = await request();
        const text = await response.text();
        if (response.ok) state.ok++;
        else failures.push(`${response.status} ${text.slice(0, 200)}`);
      } catch (error) {
        failures.push(String(error));
      }
      await Bun.sleep(Math.max(0, gapMs - (performance.now() - started)));
    }
  });
  return {
    get sent() {
      return state.sent;
    },
    get ok() {
      return state.ok;
    },
    failures,
    stop: async () => {
      state.running = false;
      await Promise.all(loops);
    },
  };
}
