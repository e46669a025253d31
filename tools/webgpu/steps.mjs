/**
 * Trains on WebGPU and on the CPU, and prints how far the parameters are apart afterwards:
 *
 *     node tools/webgpu/steps.mjs MODEL OPTIMIZER [EPSILON…]      20 steps; MODEL is a folder of graphs/pytorch
 *
 * Roots are refreshed at every fifth step, from the third step on, in float32 on the device and in float64 on the CPU. A
 * row for each relative ridge (default 1e-4): the largest residual max|D·Hᵖ − I| that the device told, the most
 * retries of a root, and the largest difference of any parameter. Needs no GPU; see measure.mjs.
 */
import "../../test/support/register-typescript.mjs";

await import("./steps.ts");
