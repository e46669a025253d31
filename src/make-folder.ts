/** Making folders, without what Node's recursive `mkdir` does below /proc: there it tries for ever. */
import { mkdirSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { FishyError, messageOf } from "./errors.js";

/**
 * Makes a folder and those that it lies in, where there are none.
 * @throws FishyError when one of them is a file or cannot be made.
 */
export function makeFolder(path: string): void {
  try {
    make(resolve(path));
  } catch (error) {
    throw new FishyError(
      `The folder ${path} cannot be made: ${messageOf(error)}. Choose one in a place that you may write to.`,
    );
  }
}

function make(path: string): void {
  const parent = dirname(path);
  // From the top, for nothing below a file can be asked for.
  if (parent !== path) make(parent);
  const found = statSync(path, { throwIfNoEntry: false });
  if (found?.isDirectory()) return;
  if (found) throw new Error(`${path} is a file`);
  try {
    mkdirSync(path);
  } catch (error) {
    // Another process may have made it meanwhile.
    if (!statSync(path, { throwIfNoEntry: false })?.isDirectory()) throw error;
  }
}
