/**
 * Mixed precision: matrix products and convolutions of the forward and backward passes in a half type; everything else,
 * parameters and state included, stays float32. Operands are cast before a product and its result after it, as PyTorch's
 * autocast does; what lies between products (activations, normalisations, sums, losses, samplers) is float32.
 */
import { FishyError, UsageError } from "../errors.js";
import { attributesFrom } from "../onnx/attributes.js";
import { GraphBuilder, valueInfo } from "../onnx/builder.js";
import { takenNames } from "../onnx/graph.js";
import { DataType, type GraphProto, type NodeProto } from "../onnx/proto.js";
import { inferTypes } from "../onnx/types.js";
import type { TrainingProgram } from "../rewrite/manifest.js";
import { type Device, type DeviceKind, formatDevice } from "../runtime/devices.js";

export const PRECISIONS = ["float32", "bfloat16", "float16"] as const;
export type Precision = (typeof PRECISIONS)[number];

const HALF_TYPES = { bfloat16: DataType.BFLOAT16, float16: DataType.FLOAT16 } as const;

/**
 * Devices that run the products, from ONNX Runtime 1.30's tables. The CPU has no kernels for float16: ONNX Runtime
 * computes them in float32, and drops casts there and back, so that a run gains nothing but shows what the program does.
 */
const DEVICES: Record<Exclude<Precision, "float32">, readonly DeviceKind[]> = {
  bfloat16: ["cuda"],
  float16: ["cuda", "webgpu", "cpu"],
};

/** Products that are computed in the half type. CUDA's convolutions have no bfloat16 and stay float32 there. */
const PRODUCTS: Record<Exclude<Precision, "float32">, ReadonlySet<string>> = {
  bfloat16: new Set(["MatMul", "Gemm"]),
  float16: new Set(["MatMul", "Gemm", "Conv", "ConvTranspose"]),
};

/** Input of a program in float16: the number that cotangents are multiplied by, a float32 scalar. */
export const LOSS_SCALE = "loss_scale";

/** @throws UsageError when a device has no kernels for a precision. */
export function checkPrecision(precision: Precision, device: Device): void {
  if (precision === "float32" || DEVICES[precision].includes(device.kind)) return;
  throw new UsageError(
    `${formatDevice(device)} has no matrix products in ${precision}. Use precision float32${precision === "bfloat16" ? " or float16" : ""}, or the device ${DEVICES[precision].filter((kind) => kind !== "cpu").join(" or ")}.`,
  );
}

/**
 * A program whose products are computed in `precision`; the same program for float32. In float16 the cotangents that start
 * its backward passes, and with them all gradients, are multiplied by a further input, `loss_scale`.
 * @throws FishyError for a program that an older fishy has written and that does not name those cotangents.
 */
export async function withPrecision<P extends TrainingProgram>(program: P, precision: Precision): Promise<P> {
  if (precision === "float32") return program;
  const { model } = program;
  const half = HALF_TYPES[precision];
  const products = PRODUCTS[precision];
  const types = await inferTypes(model);
  const isFloat = (name: string) => types.get(name)?.elemType === DataType.FLOAT;

  const graph: GraphProto = {
    ...model.graph,
    node: [],
    input: [...model.graph.input],
    initializer: [...model.graph.initializer],
  };
  const b = new GraphBuilder(graph, { names: takenNames(model.graph), counters: new Map() });
  const halves = new Map<string, string>();
  const halfOf = (name: string): string => {
    const known = halves.get(name);
    if (known !== undefined || !name) return known ?? "";
    const cast = b.op("Cast", [name], { to: half }, `${name}/${precision}`);
    halves.set(name, cast);
    return cast;
  };
  const scaled = precision === "float16" ? scaleCotangents(b, program, types) : undefined;
  scaled?.start();
  for (const node of model.graph.node) {
    const read = scaled?.reads(node) ?? node;
    if (products.has(node.opType ?? "") && !node.domain && node.input.every((name) => !name || isFloat(name))) {
      const [output = ""] = node.output;
      const product = b.unique(`${output}/${precision}`);
      graph.node.push({ ...read, input: read.input.map(halfOf), output: [product] });
      graph.node.push({
        ...{ opType: "Cast", input: [product], output: [output], name: b.unique(`${output}/float32`) },
        attribute: attributesFrom({ to: DataType.FLOAT }),
      });
    } else graph.node.push(read);
    for (const output of node.output) scaled?.made(output);
  }
  return { ...program, model: { ...model, graph } };
}

/** Multiplies cotangents by the loss scale where they are made, and lets the backward passes read the product. */
function scaleCotangents(
  b: GraphBuilder,
  { manifest }: TrainingProgram,
  types: ReadonlyMap<string, { elemType: number }>,
) {
  const { cotangents } = manifest;
  if (!cotangents) {
    throw new FishyError(
      "The training program does not say where its backward passes start, so its gradients cannot be scaled for float16. Rewrite the source model again, or use precision bfloat16.",
    );
  }
  b.graph.input.push(valueInfo(b.reserve(LOSS_SCALE), { elemType: DataType.FLOAT, shape: [] }));
  const scaledNames = new Map(cotangents.map((name) => [name, b.unique(`${name}/scaled`)]));
  const emit = (name: string) => {
    const output = scaledNames.get(name);
    if (output === undefined) return;
    const type = (types.get(name)?.elemType ?? DataType.FLOAT) as DataType;
    const scale = type === DataType.FLOAT ? LOSS_SCALE : b.cast(LOSS_SCALE, type);
    b.node("Mul", [name, scale], { outputs: [output] });
  };
  const initial = new Set(b.graph.initializer.map(({ name }) => name ?? ""));
  return {
    /** Cotangents that are constants, before all nodes. */
    start(): void {
      for (const name of cotangents) if (initial.has(name)) emit(name);
    },
    made: emit,
    reads(node: NodeProto): NodeProto {
      if (!node.input.some((name) => scaledNames.has(name))) return node;
      return { ...node, input: node.input.map((name) => scaledNames.get(name) ?? name) };
    },
  };
}
