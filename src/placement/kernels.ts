/** Whether a node has a kernel on a device that may be used: by the tables, and by what is known to fail or to be wrong. */
import { intOf, stringOf } from "../onnx/attributes.js";
import { DataType, type NodeProto, type TensorProto } from "../onnx/proto.js";
import { dataTypeName, numbersOf } from "../onnx/tensor.js";
import type { TypeMap } from "../onnx/types.js";
import { CUDA_KERNELS } from "./cuda-kernels.js";
import { type Gpu, type KernelTable, operatorKey } from "./kernel-table.js";
import { WEBGPU_KERNELS } from "./webgpu-kernels.js";

const TABLES: Readonly<Record<Gpu, KernelTable>> = { cuda: CUDA_KERNELS, webgpu: WEBGPU_KERNELS };

/**
 * `falls back`: ONNX Runtime runs the node on the CPU, between two copies. `fails`: it places the node on the device,
 * where it ends the run. `wrong`: it runs there and gives other numbers.
 */
export type Verdict = "falls back" | "fails" | "wrong";

export interface KernelProblem {
  readonly verdict: Verdict;
  /** What there is no kernel for, such as `LogSoftmax` or `Cast of int64`. */
  readonly what: string;
  readonly reason: string;
}

/** What is known around a node. */
export interface KernelScope {
  readonly types: TypeMap;
  /** The value of a constant by name. */
  constant(name: string): TensorProto | undefined;
}

/** The problem of a node on a device, or undefined when it runs there. */
export function kernelProblem(node: NodeProto, device: Gpu, scope: KernelScope): KernelProblem | undefined {
  const operator = operatorKey(node.opType, node.domain);
  // ONNX Runtime turns it into an initializer.
  if (operator === "Constant") return undefined;
  const kernel = TABLES[device][operator];
  if (!kernel) return { verdict: "falls back", what: operator, reason: "no kernel" };
  for (const [i, name] of node.input.entries()) {
    const type = scope.types.get(name)?.elemType;
    const accepted = kernel[Math.min(i, kernel.length - 1)];
    if (!name || type === undefined || !accepted) continue;
    if (accepted.split(" ").includes(dataTypeName(type))) continue;
    const what = `${operator} of ${dataTypeName(type)}`;
    return { verdict: "falls back", what, reason: `kernels for ${accepted.replaceAll(" ", ", ")} only` };
  }
  for (const { check, ...problem } of DEFECTS[device]) {
    if (check(node, scope)) return { what: operator, ...problem };
  }
  return undefined;
}

/** Something that a kernel's types do not tell. */
interface Defect {
  readonly verdict: Verdict;
  readonly reason: string;
  check(node: NodeProto, scope: KernelScope): boolean;
}

const reduces = (node: NodeProto) => stringOf(node, "reduction", "none") !== "none";
const hasType = (node: NodeProto, { types }: KernelScope, ...allowed: readonly number[]) =>
  allowed.includes(types.get(node.input[0] ?? "")?.elemType ?? 0);

/** Every adapter lets a shader bind 8 buffers (WebGPU, maxStorageBuffersPerShaderStage); one is the input. */
const MOST_SPLIT_OUTPUTS = 7;

/** Element types that WebGPU's Cast makes. */
const WEBGPU_CAST_TARGETS: readonly number[] = [
  DataType.FLOAT,
  DataType.FLOAT16,
  DataType.INT32,
  DataType.UINT32,
  DataType.INT64,
  DataType.BOOL,
];

/** Read from ONNX Runtime 1.30's sources. */
const CUDA_DEFECTS: readonly Defect[] = [
  {
    verdict: "fails",
    reason: "training mode is not supported (batch_norm.h)",
    check: (node) => node.opType === "BatchNormalization" && intOf(node, "training_mode", 0) === 1,
  },
  {
    verdict: "fails",
    reason: "reductions of float and float16 only (scatter_nd_impl.cu)",
    check: (node, scope) =>
      node.opType === "ScatterND" && reduces(node) && !hasType(node, scope, DataType.FLOAT, DataType.FLOAT16),
  },
  {
    verdict: "wrong",
    reason: "reductions are those of floats of the same size (scatter_elements.cc)",
    check: (node, scope) =>
      node.opType === "ScatterElements" &&
      reduces(node) &&
      !hasType(node, scope, DataType.FLOAT, DataType.DOUBLE, DataType.FLOAT16),
  },
];

/** Measured with onnxruntime-node 1.30.0 on SwiftShader; test/webgpu/traps.test.ts says when one is gone. */
const WEBGPU_DEFECTS: readonly Defect[] = [
  {
    verdict: "falls back",
    reason: "no kernel for the type that it makes",
    check: (node) => node.opType === "Cast" && !WEBGPU_CAST_TARGETS.includes(intOf(node, "to", 0)),
  },
  {
    verdict: "fails",
    reason: "training mode is not supported (batch_norm.cc)",
    check: (node) => node.opType === "BatchNormalization" && intOf(node, "training_mode", 0) === 1,
  },
  {
    verdict: "fails",
    reason: "the output Indices is not supported (pool.cc)",
    check: (node) => node.opType === "MaxPool" && Boolean(node.output[1]),
  },
  {
    verdict: "fails",
    reason: "1-D and 2-D only",
    check: (node, { types }) =>
      node.opType === "ConvTranspose" && (types.get(node.input[0] ?? "")?.shape?.length ?? 0) > 4,
  },
  {
    verdict: "wrong",
    reason: "groups whose output channels no vector of the kernel divides",
    check: (node, { types }) => {
      if (node.opType !== "Conv") return false;
      const groups = intOf(node, "group", 1);
      const channels = types.get(node.input[1] ?? "")?.shape?.[0];
      if (groups === 1 || typeof channels !== "number") return false;
      const vector = channels % 4 === 0 ? 4 : channels % 2 === 0 ? 2 : 1;
      const own = channels / groups;
      return own >= 4 && own % vector !== 0;
    },
  },
  {
    verdict: "wrong",
    reason: "groups of an even number of channels to one",
    check: (node, { types }) => {
      if (node.opType !== "ConvTranspose") return false;
      const groups = intOf(node, "group", 1);
      const [inputs, outputs] = types.get(node.input[1] ?? "")?.shape ?? [];
      return groups > 1 && outputs === 1 && typeof inputs === "number" && (inputs / groups) % 2 === 0;
    },
  },
  {
    verdict: "wrong",
    reason: "6, 9, 15 … input channels to a multiple of 4",
    check: (node, { types }) => {
      if (node.opType !== "Conv" || intOf(node, "group", 1) !== 1) return false;
      const [outputs, inputs] = types.get(node.input[1] ?? "")?.shape ?? [];
      if (typeof inputs !== "number" || typeof outputs !== "number") return false;
      return inputs > 3 && inputs % 3 === 0 && inputs % 4 !== 0 && outputs % 4 === 0;
    },
  },
  {
    verdict: "fails",
    reason: `more outputs than a shader may bind (${MOST_SPLIT_OUTPUTS} on every adapter)`,
    check: (node) => node.opType === "Split" && node.output.length > MOST_SPLIT_OUTPUTS,
  },
  {
    verdict: "wrong",
    reason: "negative steps",
    check: (node, { constant }) => {
      if (node.opType !== "Slice" || !node.input[4]) return false;
      const steps = constant(node.input[4]);
      return steps === undefined || numbersOf(steps).some((step) => step < 0);
    },
  },
];

const DEFECTS: Readonly<Record<Gpu, readonly Defect[]>> = { cuda: CUDA_DEFECTS, webgpu: WEBGPU_DEFECTS };
