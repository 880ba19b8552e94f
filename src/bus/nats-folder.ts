/** The folder of a nats-server of ours, within the control plane's. */
import { chmodSync, mkdirSync } from "node:fs";
import { Failure } from "../error.ts";

/** Makes `folder`, for nobody else to look into. @throws Failure `nats_folder` when it cannot. */
export function makeNatsFolder(folder: string): void {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    chmodSync(folder, 0o700);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new Failure(
      "nats_folder",
      `${folder} cannot be the folder of nats-server (${code})`,
      "move away what is there, or give another data folder with --data",
    );
  }
}
