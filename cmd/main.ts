/**
 * The executable: one program that is every part of the mesh, chosen by mode or verb.
 *
 * The only place that ends the process. Each mode and verb is loaded when it is asked for, so that
 * a sidecar carries nothing of the control plane.
 */
import { dropInherited } from "./environment.ts";
import { COMMIT, VERSION } from "./version.ts";

async function main(): Promise<number> {
  const args = process.argv.slice(2);
  if (args.length === 1 && args[0] === "--version") {
    process.stdout.write(`weft ${VERSION} (${COMMIT})\n`);
    return 0;
  }
  const env = { ...process.env };
  dropInherited(process.env);
  const { run } = await import("./program.ts");
  return run(args, env);
}

process.exit(await main());
