/**
 * Measures which cases of tools/docs/catalogue.ts run on WebGPU, and writes tools/webgpu/results.json:
 *
 *     apt-get update && apt-get install -y chromium libvulkan1
 *     node tools/webgpu/measure.mjs [--all | OPERATOR…]
 *
 * Measures what is new or emitted otherwise than when it was measured, and the operators that are named. Needs no GPU:
 * Debian's chromium ships SwiftShader, a software Vulkan driver. With a GPU, set VK_ICD_FILENAMES to the driver's file.
 * Afterwards run `node tools/docs/operators.mjs`.
 */
import "../../test/support/register-typescript.mjs";

await import("./measure.ts");
