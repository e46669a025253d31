/**
 * The bodies of ONNX Runtime's training operators (meaning: orttraining/core/graph/training_op_defs.cc and
 * orttraining/training_ops/cpu), in opset 18.
 */
import { type Attributes, floatOf, intOf, intsOf, stringOf } from "../../onnx/attributes.js";
import { DataType, type NodeProto } from "../../onnx/proto.js";
import { numbersOf } from "../../onnx/tensor.js";
import { geluGrad, quickGeluGrad, softmaxGrad, tanhGeluGrad } from "./activations.js";
import { at, type Body, type BodyContext, NoBody, range, rankOf, scalarLike } from "./body.js";
import { gradientsOf, requireType, typeAt, zerosOf } from "./from-forward.js";
import { gatherElementsGrad, gatherGrad, gatherNdGrad, sliceGrad } from "./movement.js";
import {
  batchNormalizationGrad,
  batchNormInternal,
  layerNormalizationGrad,
  simplifiedLayerNormalizationGrad,
} from "./normalization.js";
import { gruGrad, gruTraining, lstmGrad, lstmTraining } from "./recurrent.js";

/** By operator; MaxPoolGrad and AveragePoolGrad stand in ai.onnx, the others in com.microsoft. */
export const BODIES: Readonly<Record<string, Body>> = {
  AveragePoolGrad: averagePoolGrad,
  BatchNormInternal: batchNormInternal,
  BatchNormalizationGrad: batchNormalizationGrad,
  BiasFastGeluGrad_dX: (c) => [tanhGeluGrad(c, c.b.add(at(c, 1), at(c, 2)))],
  BiasGeluGrad_dX: (c) => [geluGrad(c, c.b.add(at(c, 1), at(c, 2)))],
  BroadcastGradientArgs: broadcastGradientArgs,
  ConcatTraining: concatTraining,
  ConvGrad: (c) => convGrad(c, "Conv"),
  ConvTransposeGrad: (c) => convGrad(c, "ConvTranspose"),
  DivGrad: divGrad,
  DropoutGrad: dropoutGrad,
  FastGeluGrad: (c) => [tanhGeluGrad(c, c.inputs[2] ? c.b.add(at(c, 1), at(c, 2)) : at(c, 1))],
  GatherElementsGrad: gatherElementsGrad,
  GatherGrad: gatherGrad,
  GatherNDGrad: gatherNdGrad,
  GeluGrad: (c) => [geluGrad(c, at(c, 1))],
  GRUGrad: gruGrad,
  GRUTraining: gruTraining,
  InPlaceAccumulatorV2: accumulate,
  LayerNormalizationGrad: layerNormalizationGrad,
  LeakyReluGrad: (c) => {
    const slope = scalarLike(c, 1, floatOf(c.node, "alpha", 0.01));
    return [c.b.where(c.b.greater(at(c, 1), scalarLike(c, 1, 0)), at(c, 0), c.b.mul(at(c, 0), slope))];
  },
  LogSoftmaxGrad_13: (c) => {
    const sum = c.b.reduceSum(at(c, 0), [intOf(c.node, "axis", -1)], true);
    return [c.b.sub(at(c, 0), c.b.mul(c.b.exp(at(c, 1)), sum))];
  },
  LSTMGrad: lstmGrad,
  LSTMTraining: lstmTraining,
  MaxPoolGrad: maxPoolGrad,
  QuickGeluGrad: quickGeluGrad,
  ReduceSumTraining: (c) => [
    c.b.op("ReduceSum", [at(c, 0), at(c, 1)], {
      keepdims: intOf(c.node, "keepdims", 1),
      noop_with_empty_axes: intOf(c.node, "noop_with_empty_axes", 0),
    }),
  ],
  ReluGrad: (c) => [c.b.where(c.b.greater(at(c, 1), scalarLike(c, 1, 0)), at(c, 0), scalarLike(c, 1, 0))],
  // The factor may be a count, of type int64.
  Scale: (c) => [
    c.b.op(intOf(c.node, "scale_down", 0) ? "Div" : "Mul", [at(c, 0), c.b.op("CastLike", [at(c, 1), at(c, 0)])]),
  ],
  SigmoidGrad: (c) => [c.b.mul(at(c, 0), c.b.mul(at(c, 1), c.b.sub(scalarLike(c, 1, 1), at(c, 1))))],
  SimplifiedLayerNormalizationGrad: simplifiedLayerNormalizationGrad,
  SliceGrad: sliceGrad,
  SoftmaxCrossEntropyLossGrad: crossEntropyGrad,
  SoftmaxCrossEntropyLossInternalGrad: crossEntropyGrad,
  SoftmaxGrad: (c) => {
    const rank = rankOf(c, 1);
    const axis = intOf(c.node, "axis", 1);
    return [softmaxGrad(c, range(axis < 0 ? axis + rank : axis, rank))];
  },
  SoftmaxGrad_13: (c) => [softmaxGrad(c, [intOf(c.node, "axis", -1)])],
  SplitTraining: (c) =>
    c.b.node("Split", [at(c, 0), at(c, 1)], {
      outputs: c.node.output.length,
      attributes: { axis: intOf(c.node, "axis", 0) },
    }),
  TanhGrad: (c) => [c.b.mul(at(c, 0), c.b.sub(scalarLike(c, 1, 1), c.b.mul(at(c, 1), at(c, 1))))],
};

/** The attributes of a node that its forward operator has too. */
function attributesOf(node: NodeProto, names: readonly string[]): Attributes {
  const attributes: Attributes = {};
  for (const name of names) {
    const { ints, i, s } = node.attribute.find((attribute) => attribute.name === name) ?? {};
    if (ints?.length) attributes[name] = intsOf(node, name);
    else if (s?.length) attributes[name] = stringOf(node, name, "");
    else if (i !== undefined) attributes[name] = intOf(node, name);
  }
  return attributes;
}

const WINDOW = ["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"];

/** (dY, X, W) → (dX, dW, dB). */
/** (dY, X, W) → dX, dW, dB. */
function convGrad(context: BodyContext, operator: "Conv" | "ConvTranspose"): Promise<readonly string[]> {
  const [dy, x, w] = [at(context, 0), at(context, 1), at(context, 2)];
  const [xType, wType] = [typeAt(context, 1), typeAt(context, 2)];
  const { b } = context;
  // Filters: [out, in/group, …], and [in, out/group, …] when transposed.
  const [rows, columns] = wType.shape as number[];
  const filters = operator === "Conv" ? (rows as number) : (columns as number) * intOf(context.node, "group", 1);
  const withBias = context.node.output.length > 2;
  const bias = b.op("ConstantOfShape", [b.i64([filters])]);
  const inputs = new Map([
    [x, xType],
    [w, wType],
    [bias, { elemType: xType.elemType, shape: [filters] }],
  ]);
  const attributes = attributesOf(context.node, [...WINDOW, "output_padding"]);
  return gradientsOf(context, {
    inputs,
    emit: () => b.op(operator, withBias ? [x, w, bias] : [x, w], attributes),
    cotangent: dy,
    wrt: [x, w, ...(withBias ? [bias] : [])].slice(0, context.node.output.length),
  });
}

/** The shape of a pool's input [N, C, …]: the batch is the cotangent's, the rest is known. */
function poolInput(context: BodyContext): { shape: string; type: ReturnType<typeof requireType> } {
  const { b, node } = context;
  // dX is named after X (`X_grad`, or `X_grad_0` of several).
  const name = (node.output[0] ?? "").replace(/_grad(_\d+)?$/, "");
  const type = requireType(context, name);
  const rest = type.shape?.slice(1) ?? [];
  if (!rest.every((dim) => typeof dim === "number")) {
    throw new NoBody(`pools '${name}' of shape [${type.shape?.join(", ")}], whose size is not fixed`);
  }
  const batch = b.op("Shape", [at(context, 0)], { start: 0, end: 1 });
  return { shape: b.concat([batch, b.i64(rest as number[])], 0), type };
}

function averagePoolGrad(context: BodyContext): Promise<readonly string[]> {
  const { b, node } = context;
  const { shape, type } = poolInput(context);
  const x = zerosOf(context, shape, type);
  const attributes = attributesOf(node, [...WINDOW, "ceil_mode", "count_include_pad"]);
  return gradientsOf(context, {
    inputs: new Map([[x, type]]),
    emit: () => b.op("AveragePool", [x], attributes),
    cotangent: at(context, 0),
    wrt: [x],
  });
}

/** (dY, Indices) → dX: every cotangent goes to its index in the whole tensor. */
function maxPoolGrad(context: BodyContext): readonly string[] {
  const { b } = context;
  const { shape, type } = poolInput(context);
  const flat = b.reshape(zerosOf(context, shape, type), [-1]);
  const [indices, updates] = [b.reshape(at(context, 1), [-1]), b.reshape(at(context, 0), [-1])];
  const scattered = b.op("ScatterElements", [flat, indices, updates], { axis: 0, reduction: "add" });
  return [b.reshape(scattered, shape)];
}

/** (dY, log p, labels, weight, ignored class) → dscores: the softmax of log p is p. */
function crossEntropyGrad(context: BodyContext): Promise<readonly string[]> {
  const { b, node } = context;
  const [dy, logProbabilities, labels, weight] = context.inputs as [string, string, string, string?];
  const ignored = node.input[4] || (node.opType?.includes("Internal") ? node.input[3] : undefined);
  let ignoreIndex = node.attribute.some(({ name }) => name === "ignore_index")
    ? intOf(node, "ignore_index")
    : undefined;
  if (node.opType?.includes("Internal") && ignored) {
    const constant = context.constantOf(ignored);
    if (!constant) throw new NoBody("ignores a class that is computed");
    ignoreIndex = numbersOf(constant)[0];
  }
  const inputs = new Map([
    [logProbabilities, typeAt(context, 1)],
    [labels, typeAt(context, 2)],
    ...(weight ? ([[weight, typeAt(context, 3)]] as const) : []),
  ]);
  return gradientsOf(context, {
    inputs,
    emit: () =>
      b.op("SoftmaxCrossEntropyLoss", [logProbabilities, labels, ...(weight ? [weight] : [])], {
        reduction: stringOf(node, "reduction", "mean"),
        ignore_index: ignoreIndex,
      }),
    cotangent: dy,
    wrt: [logProbabilities],
  });
}

/** dY·mask/(1 − ratio), whatever the training mode: as ONNX Runtime's kernel does. */
function dropoutGrad(context: BodyContext): readonly string[] {
  const { b } = context;
  const ratio = context.inputs[2] || b.f32(0.5);
  return [b.div(b.where(at(context, 1), at(context, 0), b.f32(0)), b.sub(b.f32(1), ratio))];
}

/** (dY, A, B) → (dA, dB). */
function divGrad(context: BodyContext): Promise<readonly string[]> {
  const { b, node } = context;
  const [dy, x, y] = [at(context, 0), at(context, 1), at(context, 2)];
  return gradientsOf(context, {
    inputs: new Map([
      [x, typeAt(context, 1)],
      [y, typeAt(context, 2)],
    ]),
    emit: () => b.div(x, y),
    cotangent: dy,
    wrt: [x, y].slice(0, node.output.length),
  });
}

/** → (the inputs joined, their lengths). */
function concatTraining(context: BodyContext): readonly string[] {
  const { b, node, inputs } = context;
  const axis = intOf(node, "axis", 0);
  const joined = b.op("Concat", inputs, { axis });
  if (node.output.length < 2) return [joined];
  const lengths = inputs.map((x) => b.gather(b.shape(x), b.i64([axis])));
  return [joined, b.concat(lengths, 0)];
}

/** (shape of a, shape of b) → the axes that broadcasting repeated in each. */
function broadcastGradientArgs(context: BodyContext): readonly string[] {
  const { b } = context;
  const shapes = [at(context, 0), at(context, 1)];
  const ranks = shapes.map((shape) => b.shape(shape));
  const rank = b.max(ranks[0] as string, ranks[1] as string);
  const one = b.i64(1);
  const padded = shapes.map((shape, i) => {
    const missing = b.expand(one, b.sub(rank, ranks[i] as string));
    return b.concat([missing, shape], 0);
  }) as [string, string];
  return padded.map((own, i) => {
    const other = padded[1 - i] as string;
    const repeated = b.op("And", [b.equal(own, one), b.op("Not", [b.equal(other, one)])]);
    return b.reshape(b.op("NonZero", [repeated]), [-1]);
  });
}

/** (buffer, value, overwrite) → (flag, the buffer's next value): nothing is in place in an inference build. */
function accumulate(context: BodyContext): readonly string[] {
  const { b } = context;
  const [buffer, value] = [at(context, 0), at(context, 1)];
  const sum = b.add(buffer, value);
  const next = context.inputs[2] ? b.where(at(context, 2), value, sum) : sum;
  return [b.constant(DataType.BOOL, [1]), next];
}
