/** What fishy runs on: versions, cores, memory, and which devices work. */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism, cpus, freemem, totalmem } from "node:os";
import { dirname, join } from "node:path";
import { messageOf } from "../errors.js";
import { loadRuntime } from "./ort.js";
import { type DeviceProbe, type Prober, probeDevice, probeDevices, providerFolder } from "./probe.js";

export interface Machine {
  readonly node: string;
  readonly platform: string;
  readonly arch: string;
  readonly cpu: string;
  /** Cores that this process may use. */
  readonly cores: number;
  /** Bytes: what this process may use (a container's limit, where there is one), and what is free on the machine. */
  readonly memory: { readonly usable: number; readonly free: number };
  readonly runtime: {
    readonly version: string;
    /** What the build lists, whether it works or not. */
    readonly providers: readonly string[];
    readonly telemetry: boolean;
    /** Why it cannot be loaded; null when it can. */
    readonly error: string | null;
  };
  readonly devices: readonly DeviceProbe[];
}

/** Looks at the machine, and probes its devices. A runtime that does not load is an answer, no error. */
export async function examineMachine(probe: Prober = probeDevice): Promise<Machine> {
  const runtime = await examineRuntime();
  const devices = runtime.error === null ? (await probeDevices(probe)).map(withLibraries) : [];
  const limit = process.constrainedMemory();
  const total = totalmem();
  return {
    node: process.versions.node,
    platform: process.platform,
    arch: process.arch,
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores: availableParallelism(),
    memory: { usable: limit > 0 && limit < total ? limit : total, free: freemem() },
    runtime,
    devices,
  };
}

async function examineRuntime(): Promise<Machine["runtime"]> {
  let version = "";
  try {
    version = JSON.parse(readFileSync(join(runtimeFolder(), "package.json"), "utf8")).version;
    const ort = await loadRuntime();
    const providers = ort.listSupportedBackends().map(({ name }) => name);
    return { version, providers, telemetry: process.env.ORT_DISABLE_TELEMETRY !== "1", error: null };
  } catch (error) {
    return { version, providers: [], telemetry: false, error: messageOf(error) };
  }
}

/** The folder of the package onnxruntime-node. */
export function runtimeFolder(): string {
  return dirname(dirname(createRequire(import.meta.url).resolve("onnxruntime-node")));
}

/** Names every library that the CUDA provider misses, not only the first, which is all that the loader tells. */
function withLibraries(found: DeviceProbe): DeviceProbe {
  const provider = join(providerFolder(), "libonnxruntime_providers_cuda.so");
  if (found.available || found.device.kind !== "cuda" || !existsSync(provider)) return found;
  const { stdout } = spawnSync("ldd", [provider], { encoding: "utf8" });
  const absent = missingLibraries(stdout ?? "");
  if (absent.length === 0) return found;
  const own = found.missing.filter((text) => !/library .* cannot be loaded/.test(text));
  return { ...found, missing: [...own, `libraries that the CUDA provider needs: ${absent.join(", ")}`] };
}

/** The libraries that `ldd` does not find. */
export function missingLibraries(ldd: string): string[] {
  return [...ldd.matchAll(/^\s*(\S+) => not found/gm)].map(([, library]) => library as string);
}
