/** Getting ONNX Runtime's CUDA provider: by onnxruntime-node's own installer, which npm was told to skip. */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { FishyError, UsageError } from "../errors.js";
import { runtimeFolder } from "./machine.js";

export interface InstallCudaOptions {
  /** The installer; that of onnxruntime-node by default. */
  readonly script?: string;
  /** Such as `linux-x64`; this machine's by default. */
  readonly platform?: string;
}

/**
 * Runs the installer, which downloads the provider for CUDA 12 from NuGet into onnxruntime-node's folder.
 * Its output goes to stderr.
 * @throws UsageError on machines that CUDA is not made for; FishyError when the installer fails.
 */
export async function installCuda({
  script = join(runtimeFolder(), "script", "install.js"),
  platform = `${process.platform}-${process.arch}`,
}: InstallCudaOptions = {}): Promise<void> {
  if (platform !== "linux-x64") {
    throw new UsageError(
      `onnxruntime-node has CUDA for linux-x64 only, and this is ${platform}. Other devices: --device webgpu or cpu.`,
    );
  }
  if (!existsSync(script))
    throw new FishyError(`onnxruntime-node has no installer ${script}. Install it again (npm ci).`);
  // Of all that may ask the installer to skip, this variable wins.
  const env = { ...process.env, ONNXRUNTIME_NODE_INSTALL: "cuda12" };
  const code = await new Promise<number | string>((resolve, reject) => {
    const child = spawn(process.execPath, [script], { env, stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => process.stderr.write(chunk));
    child.once("error", reject);
    child.once("close", (exit, signal) => resolve(exit ?? signal ?? "no code"));
  });
  if (code !== 0) {
    throw new FishyError(
      `The installer of onnxruntime-node ended with ${code}. It downloads from api.nuget.org; behind a proxy set GLOBAL_AGENT_HTTPS_PROXY.`,
    );
  }
}
