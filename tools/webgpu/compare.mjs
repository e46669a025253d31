/**
 * Compares every float value of a training step on WebGPU with the CPU's, to find kernels that are wrong:
 *
 *     node tools/webgpu/compare.mjs [FOLDER…]      folders of graphs/pytorch and graphs/architectures; default all
 *
 * Prints the first values of each model that differ, with what made them. A value that is zero but for rounding, or that a
 * draw decided, may differ on a device that is right.
 */
import "../../test/support/register-typescript.mjs";

await import("./compare.ts");
