/** Which operators have kernels on a device, for which element types. */

/**
 * Element types by operator (with its domain, unless it is the default) and input position; the last entry holds for all
 * further inputs, and an empty one takes any type. An operator that is missing has no kernel.
 */
export type KernelTable = Readonly<Record<string, readonly string[]>>;

/** The devices that tables exist for: the CPU has a kernel for all that fishy emits. */
export type Gpu = "cuda" | "webgpu";

/** How tables and users are told of devices. */
export const GPU_NAMES: Readonly<Record<Gpu, string>> = { cuda: "CUDA", webgpu: "WebGPU" };

/** `com.microsoft::Gelu`; without a prefix in the default domain. */
export function operatorKey(opType: string | undefined, domain: string | undefined): string {
  return domain && domain !== "ai.onnx" ? `${domain}::${opType ?? ""}` : (opType ?? "");
}
