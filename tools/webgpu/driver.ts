/** The Vulkan driver that WebGPU runs on: that of VK_ICD_FILENAMES, or SwiftShader of Debian's chromium. */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { tmpdir } from "node:os";

const SWIFTSHADER = "/usr/lib/chromium/vk_swiftshader_icd.json";

export interface WebGpuDriver {
  readonly file: string;
  /** Its name and version. */
  readonly name: string;
  /** The environment of a process that uses it. */
  readonly environment: NodeJS.ProcessEnv;
}

/** The driver's file, or undefined where neither is there. */
export function driverFile(): string | undefined {
  const file = process.env.VK_ICD_FILENAMES ?? SWIFTSHADER;
  return existsSync(file) ? file : undefined;
}

/** @throws an Error that says what to install. */
export function webGpuDriver(): WebGpuDriver {
  const file = driverFile();
  if (!file) throw new Error("no Vulkan driver: install chromium and libvulkan1, or set VK_ICD_FILENAMES");
  const environment = { XDG_RUNTIME_DIR: tmpdir(), ...process.env, VK_ICD_FILENAMES: file };
  if (file !== SWIFTSHADER) return { file, name: file, environment };
  const { stdout } = spawnSync("dpkg", ["--status", "chromium"], { encoding: "utf8" });
  return {
    file,
    name: `SwiftShader of Debian's chromium ${/^Version: (.*)$/m.exec(stdout ?? "")?.[1] ?? ""}`,
    environment,
  };
}
