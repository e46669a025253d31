/** Which runs a report is of: folders of runs, or folders that hold such folders. */
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { FishyError } from "../errors.js";
import { RunDirectory } from "../training/run-directory.js";
import type { NamedRun } from "./collect.js";

/**
 * The runs of `RUN`, `NAME=RUN` or a folder of runs, each.
 * @throws FishyError for a folder that is no run and holds none.
 */
export function findRuns(references: readonly string[]): NamedRun[] {
  return references.flatMap((reference) => {
    if (new RunDirectory(reference).exists) return [{ directory: reference }];
    const [, name, named] = /^([^=/\\]+)=(.+)$/.exec(reference) ?? [];
    if (name !== undefined && named !== undefined && new RunDirectory(named).exists)
      return [{ directory: named, name }];
    return runsIn(named ?? reference);
  });
}

function runsIn(folder: string): NamedRun[] {
  if (!existsSync(folder) || !statSync(folder).isDirectory())
    throw new FishyError(`There is no folder ${folder}. A run is the folder that fishy train wrote (--out).`);
  const runs = readdirSync(folder)
    .sort()
    .map((name) => join(folder, name))
    .filter((path) => new RunDirectory(path).exists);
  if (runs.length === 0)
    throw new FishyError(`${folder} holds no run: there is no options.json in it or one folder below.`);
  // Runs that failed before their first step, over their data say, have nothing to show beside others.
  const begun = runs.filter((path) => {
    const { metricsFile } = new RunDirectory(path);
    return existsSync(metricsFile) && statSync(metricsFile).size > 0;
  });
  return (begun.length > 0 ? begun : runs).map((directory) => ({ directory }));
}
