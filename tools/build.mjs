/** Compiles src/ to dist/, or to the folder that is named: `node tools/build.mjs [DIR]`. */
import { spawnSync } from "node:child_process";
import { chmodSync, cpSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";

const root = join(import.meta.dirname, "..");
const target = resolve(process.argv[2] ?? join(root, "dist"));
rmSync(target, { recursive: true, force: true });
const tsc = join(root, "node_modules", "typescript", "bin", "tsc");
const { status } = spawnSync(process.execPath, [tsc, "-p", join(root, "tsconfig.build.json"), "--outDir", target], {
  stdio: "inherit",
});
if (status !== 0) process.exit(status ?? 1);
// The browser's part of the report is no TypeScript.
cpSync(join(root, "src", "report", "assets"), join(target, "report", "assets"), { recursive: true });
chmodSync(join(target, "cli", "main.js"), 0o755);
