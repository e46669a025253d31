/** The API reference: every public export is documented, and so is every type that one refers to. */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { expect, it } from "vitest";

const root = join(import.meta.dirname, "../..");

it("is made by typedoc without a warning", () => {
  const typedoc = join(root, "node_modules", "typedoc", "bin", "typedoc");
  const { NODE_OPTIONS: _, ...env } = process.env;
  const options = { cwd: root, env: { ...env, NO_COLOR: "1" }, encoding: "utf8" } as const;
  const { status, stdout, stderr } = spawnSync(process.execPath, [typedoc, "--emit", "none"], options);
  // typedoc.json makes warnings errors.
  expect(`${stdout}${stderr}`).toBe("");
  expect(status).toBe(0);
});
