/** The settings table as options of the argument parser, and back. */
import { type Command, Option } from "commander";
import { FLAGS, type Flag, type FlagName, type Written } from "./flags.ts";
import { usage } from "./grammar.ts";

/** Adds a flag of the table to a command; `help` where it means something else to this command. */
export function addFlag(command: Command, name: FlagName, help: string = FLAGS[name].help): void {
  const flag: Flag<unknown> = FLAGS[name];
  const short = flag.short === undefined ? "" : `-${flag.short}, `;
  const hint = flag.shape === "toggle" ? "" : ` <${flag.hint}>`;
  const many = flag.shape === "many" ? "; repeatable" : "";
  const option = new Option(`${short}--${name}${hint}`, `${help}${many}`);
  if (flag.shape === "many") {
    option.argParser((value: string, before: readonly string[] | undefined) => [
      ...(before ?? []),
      value,
    ]);
  }
  command.addOption(option);
}

/** The flags as written, by their names in the table. */
export function writtenFlags(command: Command, names: readonly FlagName[]): Written {
  const values: Readonly<Record<string, unknown>> = command.opts();
  const written: Record<string, string | boolean | readonly string[]> = {};
  for (const name of names) {
    const value = values[name.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase())];
    if (value === undefined) continue;
    if (typeof value === "string" || typeof value === "boolean") written[name] = value;
    else if (Array.isArray(value)) written[name] = value.map(String);
    else throw usage(`--${name}: cannot be read`, "give one value");
  }
  return written;
}
