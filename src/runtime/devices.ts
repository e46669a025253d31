/** Devices that sessions run on: their names, and what ONNX Runtime is told of them. */
import type { InferenceSession } from "onnxruntime-node";
import { UsageError } from "../errors.js";

export type DeviceKind = "cpu" | "cuda" | "webgpu";

export interface Device {
  readonly kind: DeviceKind;
  /** Which of several GPUs; CUDA alone lets choose. */
  readonly index: number;
}

/** A device, or the first of `AUTO_ORDER` that works. */
export type DeviceRequest = Device | "auto";

export const CPU: Device = { kind: "cpu", index: 0 };
export const AUTO_ORDER: readonly Device[] = [{ kind: "cuda", index: 0 }, { kind: "webgpu", index: 0 }, CPU];

/** What `--device` may be, for help texts. */
export const DEVICE_SYNTAX = "cpu, cuda, cuda:N, webgpu or auto";

/** @throws UsageError when the text names no device. */
export function parseDevice(text: string): DeviceRequest {
  if (text === "auto") return "auto";
  const [, kind, index] = /^(cpu|cuda|webgpu)(?::(\d+))?$/.exec(text) ?? [];
  if (kind === undefined || (index !== undefined && kind !== "cuda")) {
    throw new UsageError(`'${text}' is no device. There are ${DEVICE_SYNTAX}.`);
  }
  return { kind: kind as DeviceKind, index: Number(index ?? 0) };
}

/** The name that `parseDevice` reads: `cuda:1`; the first of its kind goes without a number. */
export function formatDevice({ kind, index }: Device): string {
  return index === 0 ? kind : `${kind}:${index}`;
}

/**
 * The providers of a session on a device. Of CUDA's options onnxruntime-node 1.30 passes on the device number alone;
 * what a provider has no kernel for runs on the CPU.
 */
export function executionProviders({ kind, index }: Device): InferenceSession.ExecutionProviderConfig[] {
  if (kind === "cuda") return [{ name: "cuda", deviceId: index }];
  return [kind];
}

/**
 * Sets what CUDA's libraries read from the environment when they load; to be called before the first CUDA session.
 * Products of float32 are then float32: by default they are TF32 (10 bits of mantissa) on cards that have it, and the
 * Node binding does not pass on the provider's `use_tf32`. A value that the user has set stays.
 */
export function prepareEnvironment({ kind }: Device): void {
  if (kind === "cuda") process.env.NVIDIA_TF32_OVERRIDE ??= "0";
}
