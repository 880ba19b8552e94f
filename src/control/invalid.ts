/** A change that was refused because of what its documents say. */
import type { Issue } from "../config/resource.ts";
import { EXIT, Failure } from "../error.ts";

export class Invalid extends Failure {
  readonly issues: readonly Issue[];

  constructor(issues: readonly Issue[]) {
    const [first] = issues;
    const count = issues.length === 1 ? "1 problem" : `${issues.length} problems`;
    const place = first === undefined ? "" : `: ${first.path} ${first.reason}`;
    super("invalid", `${count} in the documents${place}`, first?.fix ?? "", {
      exit: EXIT.refused,
      status: 422,
    });
    this.issues = issues;
  }
}
