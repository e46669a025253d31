/** Which devices work on this machine: each runs a small graph whose result is known. */
import { fork } from "node:child_process";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { FishyError, messageOf } from "../errors.js";
import { AUTO_ORDER, CPU, type Device, type DeviceRequest, formatDevice } from "./devices.js";
import { type ProbeOutcome, runProbe } from "./probe-graph.js";

/** What is known of a device. */
export interface DeviceProbe {
  readonly device: Device;
  /** Such as `cuda:1`. */
  readonly name: string;
  readonly available: boolean;
  /** Measured by a product of two 512×512 matrices, copies to and from the device included; where available. */
  readonly gigaflops?: number;
  /** Whether products of float32 keep all 24 bits; not so with TF32. Where available. */
  readonly isExact?: boolean;
  /** What is missing, a clause each; where not available. */
  readonly missing: readonly string[];
  /** What to do about it; where not available. */
  readonly remedies: readonly string[];
}

/** How a probe is made; replaced by tests. */
export type Prober = (device: Device) => Promise<DeviceProbe>;

/** A GPU's first session compiles and tunes; a driver that hangs is given up. */
const TIMEOUT_MS = 120_000;

/**
 * Probes one device. GPUs are probed in a process of their own, since a broken driver may end it, and drivers write to
 * its stderr.
 */
export async function probeDevice(device: Device): Promise<DeviceProbe> {
  const name = formatDevice(device);
  const result = (outcome: ProbeOutcome): DeviceProbe => ({
    ...{ device, name, available: true, missing: [], remedies: [] },
    ...outcome,
  });
  if (device.kind === "cpu") return result(await runProbe(device));
  const problems = device.kind === "cuda" ? missingForCuda() : missingForWebGpu();
  const unavailable = (found: readonly Problem[]): DeviceProbe => ({
    ...{ device, name, available: false },
    missing: found.map(({ missing }) => missing),
    remedies: [...new Set(found.map(({ remedy }) => remedy))],
  });
  if (problems.length > 0) return unavailable(problems);
  try {
    return result(await probeInProcess(device));
  } catch (error) {
    return unavailable([explain(device, messageOf(error))]);
  }
}

/** Probes what `auto` chooses from, in its order. */
export async function probeDevices(probe: Prober = probeDevice): Promise<readonly DeviceProbe[]> {
  const probes: DeviceProbe[] = [];
  for (const device of AUTO_ORDER) probes.push(await probe(device));
  return probes;
}

export interface ChosenDevice {
  readonly device: Device;
  /** Its name and why it is this one: a clause for the user. */
  readonly why: string;
}

/**
 * The device that a request means. `auto` takes the first of CUDA, WebGPU and CPU that computes rightly; WebGPU only when
 * it is faster than the CPU, which a driver in software is not.
 * @throws FishyError naming what a device that was asked for lacks, and the remedy.
 */
export async function chooseDevice(request: DeviceRequest, probe: Prober = probeDevice): Promise<ChosenDevice> {
  if (request !== "auto") {
    if (request.kind === "cpu") return { device: CPU, why: "cpu, as asked for" };
    const found = await probe(request);
    if (found.available) return { device: request, why: `${found.name}, as asked for` };
    throw new FishyError(
      `The device ${found.name} cannot be used: ${found.missing.join("; ")}. ${found.remedies.join(" ")}`,
    );
  }
  const passed: string[] = [];
  for (const device of AUTO_ORDER) {
    const found = await probe(device);
    if (!found.available) passed.push(`${found.name}: ${found.missing.join("; ")}`);
    else if (device.kind === "webgpu" && !(await isFasterThanCpu(found, probe))) {
      passed.push(`${found.name}: slower than the CPU`);
    } else {
      return { device, why: `${found.name}, the first that works${passed.map((text) => ` (${text})`).join("")}` };
    }
  }
  return { device: CPU, why: "cpu" };
}

async function isFasterThanCpu({ gigaflops = 0 }: DeviceProbe, probe: Prober): Promise<boolean> {
  return gigaflops > ((await probe(CPU)).gigaflops ?? 0);
}

export interface Problem {
  readonly missing: string;
  readonly remedy: string;
}

const DRIVER = "Install NVIDIA's driver (nvidia-smi must list the card), or use --device cpu.";

/** What can be seen to be missing without loading anything. */
function missingForCuda(): Problem[] {
  const { platform, arch } = process;
  if (platform !== "linux" || arch !== "x64") {
    return [
      {
        missing: `onnxruntime-node has CUDA for linux-x64 only, and this is ${platform}-${arch}`,
        remedy: "Use --device webgpu or cpu.",
      },
    ];
  }
  const problems: Problem[] = [];
  // WSL has the second.
  if (!["/dev/nvidiactl", "/dev/dxg"].some((path) => existsSync(path))) {
    problems.push({
      missing: "no NVIDIA GPU with its driver is there (/dev/nvidiactl)",
      remedy: DRIVER,
    });
  }
  const absent = ["libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so"].filter(
    (file) => !existsSync(join(providerFolder(), file)),
  );
  if (absent.length > 0) {
    problems.push({
      missing: `ONNX Runtime's CUDA provider is not installed (${absent.join(", ")})`,
      remedy: "Install it with: fishy doctor --install-cuda.",
    });
  }
  return problems;
}

function missingForWebGpu(): Problem[] {
  const { platform, arch } = process;
  if (platform !== "linux" || arch !== "arm64") return [];
  return [{ missing: "onnxruntime-node has no WebGPU for linux-arm64", remedy: "Use --device cpu." }];
}

/** The folder of onnxruntime-node's native files, where the CUDA provider has to lie. */
export function providerFolder(): string {
  const main = createRequire(import.meta.url).resolve("onnxruntime-node");
  return join(dirname(main), "../bin/napi-v6", process.platform, process.arch);
}

/**
 * What is missing, from what a probe that failed has said.
 * @param message its stderr, with the runtime's message.
 */
export function explain({ kind, index }: Device, message: string): Problem {
  const library = /([\w.+-]+\.so[\w.]*): cannot open shared object file/.exec(message)?.[1];
  if (kind === "cuda" && library) {
    // The name tells the version that the provider was built for: libcublas.so.13.
    const version = /^lib(?:cudart|cublas|cublasLt)\.so\.(\d+)/.exec(library)?.[1];
    return {
      missing: `the library ${library} cannot be loaded`,
      remedy: library.startsWith("libcuda.so")
        ? DRIVER
        : `Install CUDA${version ? ` ${version}` : ""} with cuDNN 9 where the loader finds them (LD_LIBRARY_PATH, or ldconfig); docs/gpu.md has the list.`,
    };
  }
  if (kind === "cuda" && /driver version is insufficient/i.test(message)) {
    return {
      missing: "NVIDIA's driver is older than the CUDA that ONNX Runtime's provider was built for",
      remedy: "Install a newer driver, or a provider for the CUDA that nvidia-smi names (docs/gpu.md).",
    };
  }
  if (kind === "cuda" && /invalid device ordinal/i.test(message)) {
    return { missing: `there is no GPU number ${index}`, remedy: "nvidia-smi lists the numbers that there are." };
  }
  if (kind === "webgpu" && /No supported adapters|Failed to get a WebGPU adapter/i.test(message)) {
    const driver =
      process.platform === "linux" ? "a Vulkan driver" : process.platform === "darwin" ? "Metal" : "Direct3D 12";
    return {
      missing: `WebGPU finds no adapter: ${driver} for a GPU is needed`,
      remedy:
        process.platform === "linux"
          ? "Install the GPU's Vulkan driver (vulkaninfo must list it), or use --device cpu."
          : "Update the GPU's driver, or use --device cpu.",
    };
  }
  const last = message.trim().split("\n").slice(-4).join(" ");
  return { missing: `the probe failed: ${last}`, remedy: "fishy doctor shows more; --device cpu always works." };
}

/** Runs the probe in a process of its own. @throws FishyError with what the process wrote, when it fails. */
function probeInProcess(device: Device): Promise<ProbeOutcome> {
  const entry = fileURLToPath(new URL(`./probe-child${extname(import.meta.url)}`, import.meta.url));
  const child = fork(entry, [formatDevice(device)], { stdio: ["ignore", "ignore", "pipe", "ipc"] });
  let outcome: ProbeOutcome | undefined;
  let text = "";
  let timer: NodeJS.Timeout | undefined;
  child.stderr?.on("data", (chunk) => {
    text = (text + chunk).slice(-20_000);
  });
  child.on("message", (message: ProbeOutcome) => {
    outcome = message;
  });
  return new Promise<ProbeOutcome>((resolve, reject) => {
    timer = setTimeout(() => child.kill("SIGKILL"), TIMEOUT_MS);
    child.once("error", reject);
    child.once("close", (code, signal) => {
      const how = signal ? `ended by ${signal}` : `ended with code ${code}`;
      if (outcome) resolve(outcome);
      else reject(new FishyError(`${text}\nThe probe of ${formatDevice(device)} was ${how}.`));
    });
  }).finally(() => clearTimeout(timer));
}
