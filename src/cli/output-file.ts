/** Where a command writes: never over what it reads. */
import { existsSync, realpathSync } from "node:fs";
import { UsageError } from "../errors.js";

/** @throws UsageError when the output is the model itself. */
export function refuseOverwriting(model: string | undefined, output: string): void {
  if (model === undefined || !existsSync(model) || !existsSync(output)) return;
  if (realpathSync(model) !== realpathSync(output)) return;
  throw new UsageError(`${output} is the model itself, which would be lost. Give the output another name.`);
}
