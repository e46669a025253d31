/** The package as a user gets it: packed into a tarball, unpacked into an empty project, its dependencies beside it. */
import { spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, resolve } from "node:path";

export const ROOT = resolve(import.meta.dirname, "../..");

interface PackageJson {
  readonly name: string;
  readonly version: string;
  readonly files: readonly string[];
  readonly dependencies: Readonly<Record<string, string>>;
  readonly bin: Readonly<Record<string, string>>;
}

export const PACKAGE: PackageJson = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));

export interface CommandResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program without the loader that lets this project's own processes read TypeScript. */
export function runCommand(command: string, args: readonly string[], cwd: string): CommandResult {
  const { NODE_OPTIONS: _, ...env } = process.env;
  const isScript = process.platform === "win32" && command === "npm";
  const result = spawnSync(command, args, { cwd, env: { ...env, NO_COLOR: "1" }, encoding: "utf8", shell: isScript });
  return { code: result.status, stdout: result.stdout, stderr: result.stderr };
}

export function mustRun(command: string, args: readonly string[], cwd: string): string {
  const { code, stdout, stderr } = runCommand(command, args, cwd);
  if (code !== 0) throw new Error(`${command} ${args.join(" ")} ended with ${code}:\n${stdout}${stderr}`);
  return stdout;
}

/**
 * Packs the package, from `dist/` when it is newer than every source, from a build of its own otherwise.
 * @returns the tarball's path, the folder that was packed and the paths in it.
 */
export function pack(folder: string): { tarball: string; stage: string; paths: string[] } {
  const stage = join(folder, "stage");
  mkdirSync(stage, { recursive: true });
  const dist = join(ROOT, "dist");
  if (newest(join(ROOT, "src")) < (existsSync(join(dist, "index.js")) ? statSync(join(dist, "index.js")).mtimeMs : 0)) {
    cpSync(dist, join(stage, "dist"), { recursive: true, preserveTimestamps: true });
  } else {
    mustRun(process.execPath, [join(ROOT, "tools", "build.mjs"), join(stage, "dist")], ROOT);
  }
  const others = PACKAGE.files.filter((name) => existsSync(join(ROOT, name)) && name !== "dist");
  for (const name of ["package.json", ...others]) cpSync(join(ROOT, name), join(stage, name));
  const [packed] = JSON.parse(mustRun("npm", ["pack", "--json", "--ignore-scripts"], stage));
  const paths = packed.files.map((file: { path: string }) => file.path);
  return { tarball: join(stage, packed.filename), stage, paths };
}

/** An empty project with the package unpacked from its tarball; only what it declares can be resolved from it. */
export function installTarball(tarball: string, project: string): void {
  const modules = join(project, "node_modules");
  const target = join(modules, PACKAGE.name);
  mkdirSync(target, { recursive: true });
  writeFileSync(join(project, "package.json"), JSON.stringify({ name: "user", private: true, type: "module" }));
  mustRun("tar", ["-xzf", tarball, "-C", target, "--strip-components=1"], project);
  // Types of Node are the user's own, as a project in TypeScript has them.
  for (const name of [...Object.keys(PACKAGE.dependencies), "@types/node"]) {
    mkdirSync(dirname(join(modules, name)), { recursive: true });
    symlinkSync(join(ROOT, "node_modules", name), join(modules, name), "junction");
  }
}

function newest(folder: string): number {
  const times = readdirSync(folder, { withFileTypes: true }).map((entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? newest(path) : statSync(path).mtimeMs;
  });
  return Math.max(...times);
}
