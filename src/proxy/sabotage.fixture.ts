/** Exceptions where nobody expects them, for tests of the error boundary. */

/** Lets `method` throw at every `nth` call, before or after its work. Returns what undoes it. */
export function sabotage(of: object, method: string, nth: number): () => void {
  const target = of as Record<string, (...args: unknown[]) => unknown>;
  const original = target[method]!;
  let calls = 0;
  target[method] = function (this: unknown, ...args: unknown[]) {
    const now = ++calls % nth === 0;
    if (now && calls % (2 * nth) === 0) throw new Error(`sabotaged ${method}`);
    const result = original.apply(this, args);
    if (now) throw new Error(`sabotaged after ${method}`);
    return result;
  };
  return () => {
    target[method] = original;
  };
}
