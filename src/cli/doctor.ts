/** `fishy doctor`: what fishy runs on, which devices work, and what is missing for the others. */
import { Command } from "commander";
import { FishyError } from "../errors.js";
import { installCuda } from "../runtime/install-cuda.js";
import { examineMachine, type Machine } from "../runtime/machine.js";
import type { DeviceProbe } from "../runtime/probe.js";
import { formatTable } from "./table.js";

interface DoctorFlags {
  installCuda?: boolean;
  json?: boolean;
}

export function doctorCommand(version: string): Command {
  return new Command("doctor")
    .description("show versions, cores and memory, try each device, and tell what the others lack")
    .option("--install-cuda", "first get ONNX Runtime's CUDA provider by onnxruntime-node's own installer (linux-x64)")
    .option("--json", "print the findings as JSON")
    .action(async (flags: DoctorFlags) => {
      if (flags.installCuda) await installCuda();
      const machine = await examineMachine();
      process.stdout.write(
        `${flags.json ? JSON.stringify({ fishy: version, ...machine }, null, 2) : formatMachine(version, machine)}\n`,
      );
      const { error } = machine.runtime;
      if (error !== null) throw new FishyError(error);
    });
}

export function formatMachine(version: string, { runtime, devices, memory, ...machine }: Machine): string {
  const gibibytes = (bytes: number) => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
  const facts: [string, string][] = [
    ["fishy", version],
    ["Node", `${machine.node} on ${machine.platform}-${machine.arch}`],
    ["CPU", `${machine.cpu}, ${machine.cores} ${machine.cores === 1 ? "core" : "cores"} usable`],
    ["memory", `${gibibytes(memory.usable)} usable, ${gibibytes(memory.free)} free`],
    ["onnxruntime-node", `${runtime.version || "not found"}, telemetry ${runtime.telemetry ? "on" : "off"}`],
    ["providers listed", runtime.providers.join(", ") || "none"],
  ];
  const width = Math.max(...facts.map(([name]) => name.length));
  return [
    facts.map(([name, fact]) => `${name.padEnd(width)}  ${fact}`).join("\n"),
    ...(devices.length > 0 ? [formatDevices(devices)] : []),
    ...devices.filter(({ available }) => !available).map(formatLack),
  ].join("\n\n");
}

function formatDevices(devices: readonly DeviceProbe[]): string {
  return formatTable(
    ["device", "works", "512³ product", "float32 products"],
    devices.map(({ name, available, gigaflops, isExact }) => [
      name,
      available ? "yes" : "no",
      available && gigaflops !== undefined ? `${Number(gigaflops.toPrecision(3))} GFLOP/s` : "",
      available ? (isExact ? "exact" : "rounded to TF32") : "",
    ]),
  );
}

function formatLack({ name, missing, remedies }: DeviceProbe): string {
  return [`For ${name}:`, ...missing.map((text) => `  – ${text}`), ...remedies.map((text) => `  → ${text}`)].join("\n");
}
