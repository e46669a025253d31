import { existsSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { FishyError } from "../src/errors.js";
import { makeFolder } from "../src/make-folder.js";
import { temporaryFolder } from "./training/support.js";

const folder = temporaryFolder();

describe("making a folder", () => {
  test("makes those that it lies in, and leaves one that is there", () => {
    const path = join(folder, "a", "b", "c");
    makeFolder(path);
    makeFolder(`${path}/`);
    expect(statSync(path).isDirectory()).toBe(true);
  });

  test("names the file that is in the way", () => {
    const file = join(folder, "file");
    writeFileSync(file, "");
    for (const path of [file, join(file, "x", "y")]) {
      expect(() => makeFolder(path)).toThrow(FishyError);
      expect(() => makeFolder(path)).toThrow(`The folder ${path} cannot be made: ${file} is a file. Choose`);
    }
  });

  // Node's recursive mkdir never comes back from there.
  test.runIf(existsSync("/proc/self"))("refuses one below /proc", () => {
    expect(() => makeFolder("/proc/fishy/run")).toThrow(
      /^The folder \/proc\/fishy\/run cannot be made: ENOENT.*'\/proc\/fishy'. Choose one in a place that you may write/,
    );
  });
});
