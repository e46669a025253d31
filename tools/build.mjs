/** Compiles src/ to dist/. */
import { spawnSync } from "node:child_process";
import { chmodSync, cpSync, rmSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dirname, "..");
rmSync(join(root, "dist"), { recursive: true, force: true });
const tsc = join(root, "node_modules", "typescript", "bin", "tsc");
const { status } = spawnSync(process.execPath, [tsc, "-p", join(root, "tsconfig.build.json")], { stdio: "inherit" });
if (status !== 0) process.exit(status ?? 1);
// The browser's part of the report is no TypeScript.
cpSync(join(root, "src", "report", "assets"), join(root, "dist", "report", "assets"), { recursive: true });
chmodSync(join(root, "dist", "cli", "main.js"), 0o755);
