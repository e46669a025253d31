/**
 * Measures which operators have a WebGPU kernel for which element types, and writes src/placement/webgpu-kernels.ts:
 *
 *     apt-get update && apt-get install -y chromium libvulkan1
 *     node tools/webgpu/kernels.mjs && npx biome check --write src/placement/webgpu-kernels.ts
 *
 * Every operator that fishy's training graphs hold (the cases of tools/docs/catalogue.ts, and the steps of the models in
 * graphs/pytorch) becomes a model of one node, in every element type that ONNX allows, and is loaded with the fallback to
 * the CPU forbidden. Needs no GPU; see measure.mjs.
 */
import "../../test/support/register-typescript.mjs";

await import("./kernels.ts");
