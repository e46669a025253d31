/**
 * The cases that docs/operators.md and tools/webgpu/results.json are made from: one line for each operator with a
 * gradient, more where its attributes change which operators are emitted.
 */
import { float } from "../../src/onnx/attributes.js";
import { DataType } from "../../src/onnx/proto.js";
import {
  bools,
  type Case,
  constant,
  data,
  dataIn,
  floats,
  graph,
  indices,
  ints,
  node,
  type Operand,
  weight,
} from "./case.js";

const MICROSOFT = "com.microsoft";
/** An activation or another function of each element. */
const unary = (operator: string, x: Operand = data(2, 3), opset = 18) => node(operator, { X: x }, {}, { opset });
const pair = (operator: string, b: Operand = weight(3)) => node(operator, { A: data(2, 3), B: b });
const positive = dataIn(0.5, 2, 2, 3);
const image = data(2, 4, 6, 6);
const reduce = (operator: string, x: Operand = data(2, 3, 4)) =>
  node(operator, { data: x, axes: ints([1]) }, { keepdims: 0 });
const scatterRows: Operand = { ...indices(2, 2, 2), values: [0, 1, 1, 0] };
const recurrent = (operator: string, gates: number, variant: string, attributes: Record<string, string | number>) =>
  node(
    operator,
    {
      X: { ...weight(3, 2, 4), role: "weight" },
      W: weight(attributes.direction === "bidirectional" ? 2 : 1, gates * 5, 4),
      R: weight(attributes.direction === "bidirectional" ? 2 : 1, gates * 5, 5),
      B: weight(attributes.direction === "bidirectional" ? 2 : 1, 2 * gates * 5),
    },
    { hidden_size: 5, ...attributes },
    { variant, outputs: operator === "LSTM" ? 3 : 2 },
  );

const UNROLLED = "a number of steps that is known at export, at most 4096";
const LISTS = "lists whose number of tensors is known at export";

/** What lowerings and the opset conversion refuse; rules say so themselves (`notes`). */
export const LIMITS: Readonly<Record<string, string>> = {
  LSTM: UNROLLED,
  GRU: UNROLLED,
  RNN: UNROLLED,
  Loop: `${UNROLLED}; a condition that does not depend on data`,
  Scan: UNROLLED,
  If: "a condition known at run time only needs both branches to have one shape, and runs both",
  SplitToSequence: LISTS,
  SequenceAt: LISTS,
  ConcatFromSequence: LISTS,
  QuantizeLinear: "followed by DequantizeLinear, with --straight-through; int8 and uint8",
  DequantizeLinear: "preceded by QuantizeLinear, with --straight-through; int8 and uint8",
  Attention: "no padded key-value cache (nonpad_kv_seqlen), no sliding window",
};

export const CATALOGUE: readonly Case[] = [
  // Linear algebra
  node("Gemm", { A: data(2, 3), B: weight(3, 4), C: weight(4) }),
  node(
    "Gemm",
    { A: data(2, 3), B: weight(4, 3), C: weight(4) },
    { transB: 1, alpha: float(0.5), beta: float(2) },
    { variant: "transB, alpha" },
  ),
  node("MatMul", { A: data(2, 3), B: weight(3, 4) }),
  node("MatMul", { A: data(2, 5, 3), B: weight(3, 4) }, {}, { variant: "N-D by 2-D" }),
  node("MatMul", { A: data(2, 2, 5, 3), B: data(2, 2, 3, 4) }, {}, { variant: "batched" }),
  node("MatMul", { A: data(2, 3), B: weight(3) }, {}, { variant: "by a vector" }),
  node("Einsum", { Input_0: data(2, 3, 4), Input_1: weight(4, 5) }, { equation: "bij,jk->bik" }),
  node("Conv", { X: image, W: weight(5, 4, 3, 3), B: weight(5) }, { pads: [1, 1, 1, 1] }),
  node("Conv", { X: image, W: weight(4, 4, 2, 2) }, { strides: [2, 2] }, { variant: "strides" }),
  node(
    "Conv",
    { X: image, W: weight(6, 2, 3, 3), B: weight(6) },
    { group: 2, dilations: [2, 2], pads: [2, 2, 2, 2] },
    { variant: "groups, dilations" },
  ),
  node(
    "Conv",
    { X: image, W: weight(4, 1, 3, 3) },
    { group: 4, strides: [2, 2], pads: [1, 1, 0, 0] },
    { variant: "depthwise" },
  ),
  node("Conv", { X: data(2, 4, 7), W: weight(5, 4, 3) }, { auto_pad: "SAME_UPPER" }, { variant: "1-D, auto_pad" }),
  node("Conv", { X: data(2, 2, 4, 4, 4), W: weight(3, 2, 2, 2, 2) }, {}, { variant: "3-D" }),
  node(
    "ConvTranspose",
    { X: data(2, 4, 3, 3), W: weight(4, 5, 3, 3), B: weight(5) },
    { strides: [2, 2], pads: [1, 1, 1, 1], output_padding: [1, 1] },
  ),
  node("ConvTranspose", { X: data(2, 4, 5), W: weight(4, 3, 3) }, { group: 2 }, { variant: "1-D, groups" }),
  node("ConvTranspose", { X: data(2, 2, 3, 3, 3), W: weight(2, 3, 2, 2, 2) }, {}, { variant: "3-D" }),
  // Pools
  node("MaxPool", { X: image }, { kernel_shape: [2, 2], strides: [2, 2] }),
  node(
    "MaxPool",
    { X: image },
    { kernel_shape: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1], ceil_mode: 1 },
    { variant: "overlapping, pads, ceil_mode" },
  ),
  node("MaxPool", { X: data(2, 2, 4, 4, 4) }, { kernel_shape: [3, 3, 3] }, { variant: "3-D, overlapping" }),
  node("AveragePool", { X: image }, { kernel_shape: [2, 2], strides: [2, 2] }),
  node(
    "AveragePool",
    { X: image },
    { kernel_shape: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1], count_include_pad: 1 },
    { variant: "overlapping, pads" },
  ),
  node("LpPool", { X: image }, { kernel_shape: [2, 2], strides: [2, 2], p: 2 }),
  node("LpPool", { X: image }, { kernel_shape: [3, 3], p: 3 }, { variant: "overlapping, p = 3" }),
  unary("GlobalAveragePool", image),
  unary("GlobalMaxPool", image),
  // Normalisation
  node(
    "BatchNormalization",
    {
      X: image,
      scale: weight(4),
      B: weight(4),
      input_mean: floats([0, 0.1, 0.2, 0.3], [4]),
      input_var: floats([1, 2, 1, 2], [4]),
    },
    {},
    { variant: "frozen" },
  ),
  node(
    "BatchNormalization",
    {
      X: image,
      scale: weight(4),
      B: weight(4),
      input_mean: floats([0, 0, 0, 0], [4]),
      input_var: floats([1, 1, 1, 1], [4]),
    },
    { training_mode: 1 },
    { variant: "batch statistics", outputs: 3, returned: 1 },
  ),
  node("LayerNormalization", { X: data(2, 3, 4), Scale: weight(4), B: weight(4) }),
  node(
    "LayerNormalization",
    { X: data(2, 3, 4), Scale: weight(4), B: weight(4) },
    {},
    { variant: "three outputs", outputs: 3, returned: 1 },
  ),
  node("InstanceNormalization", { input: image, scale: weight(4), B: weight(4) }),
  node("GroupNormalization", { X: image, scale: weight(4), bias: weight(4) }, { num_groups: 2 }, { opset: 21 }),
  node(
    "GroupNormalization",
    { X: image, scale: weight(2), bias: weight(2) },
    { num_groups: 2 },
    { variant: "of opset 18" },
  ),
  node("RMSNormalization", { X: data(2, 3, 4), scale: weight(4) }, {}, { opset: 23 }),
  node("LRN", { X: image }, { size: 3 }),
  node("MeanVarianceNormalization", { X: image }),
  node("LpNormalization", { input: data(2, 3) }, { axis: 1, p: 2 }),
  // Elementwise
  ...["Add", "Sub", "Mul"].map((operator) => pair(operator)),
  pair("Div", { ...weight(3), range: [0.5, 2] }),
  node("Mod", { A: data(2, 3), B: { ...weight(3), range: [0.5, 2] } }, { fmod: 1 }),
  node("Pow", { X: positive, Y: floats([3]) }, {}, { variant: "constant exponent" }),
  node("Pow", { X: positive, Y: weight(3) }, {}, { variant: "trainable exponent" }),
  ...[
    "Neg",
    "Abs",
    "Exp",
    "Erf",
    "Sin",
    "Cos",
    "Tan",
    "Atan",
    "Sinh",
    "Cosh",
    "Asinh",
    "Floor",
    "Ceil",
    "Round",
    "Sign",
  ].map((operator) => unary(operator)),
  ...["Log", "Sqrt", "Reciprocal"].map((operator) => unary(operator, positive)),
  ...["Asin", "Acos", "Atanh"].map((operator) => unary(operator, dataIn(-0.9, 0.9, 2, 3))),
  unary("Acosh", dataIn(1.5, 3, 2, 3)),
  // Activations
  ...["Relu", "LeakyRelu", "Elu", "Selu", "Celu", "ThresholdedRelu", "Shrink", "HardSigmoid", "HardSwish"].map(
    (operator) => unary(operator, dataIn(-3, 3, 2, 3)),
  ),
  ...["Sigmoid", "Tanh", "Softplus", "Softsign", "Mish"].map((operator) => unary(operator)),
  node("PRelu", { X: data(2, 3), slope: weight(3) }),
  unary("Swish", data(2, 3), 24),
  unary("Gelu", data(2, 3), 20),
  node("Gelu", { X: data(2, 3) }, { approximate: "tanh" }, { variant: "tanh", opset: 20 }),
  node("Softmax", { input: data(2, 3) }, { axis: 1 }),
  node("LogSoftmax", { input: data(2, 3) }, { axis: 1 }),
  // Choosing
  node("Where", { condition: bools(2, 3), X: data(2, 3), Y: weight(3) }),
  node("Clip", { input: data(2, 3), min: weight(), max: weight() }),
  node("Clip", { input: data(2, 3), min: floats([-0.5]), max: floats([0.5]) }, {}, { variant: "constant bounds" }),
  ...["Min", "Max", "Sum", "Mean"].map((operator) =>
    node(operator, { data_0: data(2, 3), data_1: weight(3), data_2: data(2, 1) }),
  ),
  // Movement
  unary("Identity"),
  node("Cast", { input: data(2, 3) }, { to: DataType.FLOAT }),
  node("CastLike", { input: data(2, 3), target_type: floats([0]) }),
  node("Reshape", { data: data(2, 3, 4), shape: ints([0, 12]) }),
  node("Flatten", { input: data(2, 3, 4) }),
  node("Transpose", { data: data(2, 3, 4) }, { perm: [0, 2, 1] }),
  node("Squeeze", { data: data(2, 1, 3), axes: ints([1]) }),
  node("Unsqueeze", { data: data(2, 3), axes: ints([1]) }),
  node("Expand", { input: weight(3), shape: ints([2, 3]) }),
  node("Expand", { input: data(2, 1), shape: ints([1, 3]) }, {}, { variant: "symbolic" }),
  node("Tile", { input: data(2, 3), repeats: ints([1, 2]) }),
  node("Concat", { inputs_0: data(2, 3), inputs_1: data(2, 2) }, { axis: 1 }),
  node("Split", { input: data(2, 4), split: ints([1, 3]) }, { axis: 1 }, { outputs: 2 }),
  node("Slice", { data: data(2, 5), starts: ints([1]), ends: ints([4]), axes: ints([1]) }),
  node(
    "Slice",
    { data: data(2, 6), starts: ints([4]), ends: ints([-9]), axes: ints([1]), steps: ints([-2]) },
    {},
    { variant: "negative step" },
  ),
  node("Pad", { data: data(2, 3), pads: ints([0, 1, 0, 2]), constant_value: floats([0]) }, {}, { variant: "constant" }),
  node("Pad", { data: data(2, 3), pads: ints([0, 1, 0, 2]) }, { mode: "reflect" }, { variant: "reflect" }),
  node("Pad", { data: data(2, 3), pads: ints([0, 1, 0, 2]) }, { mode: "edge" }, { variant: "edge" }),
  node("DepthToSpace", { input: image }, { blocksize: 2 }),
  node("SpaceToDepth", { input: image }, { blocksize: 2 }),
  node("DepthToSpace", { input: image }, { blocksize: 2, mode: "CRD" }, { variant: "CRD" }),
  node(
    "ReverseSequence",
    { input: data(2, 3, 4), sequence_lens: { ...indices(4, 2), values: [2, 3] } },
    { batch_axis: 0, time_axis: 1 },
  ),
  node("Trilu", { input: data(2, 3, 3), k: ints([0], []) }),
  node("CumSum", { x: data(2, 3), axis: ints([1], []) }),
  // Indexing
  node("Gather", { data: weight(5, 3), indices: indices(5, 2, 4) }, {}, { variant: "embedding" }),
  node("Gather", { data: data(2, 5), indices: ints([0, 3, 3]) }, { axis: 1 }, { variant: "constant indices" }),
  node("GatherElements", { data: data(2, 3), indices: indices(3, 2, 2) }, { axis: 1 }),
  node("GatherND", { data: weight(4, 3), indices: indices(4, 2, 1) }),
  node("ScatterElements", { data: data(2, 3), indices: scatterRows, updates: data(2, 2) }, { axis: 1 }),
  node(
    "ScatterElements",
    { data: data(2, 3), indices: scatterRows, updates: data(2, 2) },
    { axis: 1, reduction: "add" },
    { variant: "add" },
  ),
  node("ScatterND", { data: weight(4, 3), indices: ints([1, 3], [2, 1]), updates: weight(2, 3) }),
  node(
    "ScatterND",
    { data: weight(4, 3), indices: ints([1, 1], [2, 1]), updates: weight(2, 3) },
    { reduction: "add" },
    { variant: "add" },
  ),
  node("Scatter", { data: data(2, 3), indices: scatterRows, updates: data(2, 2) }, { axis: 1 }, { opset: 10 }),
  node(
    "GridSample",
    { X: image, grid: data(2, 3, 3, 2) },
    { mode: "nearest", padding_mode: "border" },
    { variant: "nearest, border" },
  ),
  node(
    "ScatterElements",
    { data: data(2, 3), indices: scatterRows, updates: data(2, 2) },
    { axis: 1, reduction: "mul" },
    { variant: "mul" },
  ),
  node(
    "ScatterElements",
    { data: data(2, 3), indices: scatterRows, updates: data(2, 2) },
    { axis: 1, reduction: "max" },
    { variant: "max" },
  ),
  node("TopK", { X: data(2, 5), K: ints([2]) }, { axis: 1 }, { outputs: 2 }),
  node("Compress", { input: weight(4, 3), condition: constant(DataType.BOOL, [1, 0, 1, 1], [4]) }, { axis: 0 }),
  node("OneHot", { indices: indices(3, 2), depth: ints([3]), values: weight(2) }),
  // Resizing
  node(
    "Resize",
    { X: image, roi: undefined, scales: floats([1, 1, 2, 2], [4]) },
    { mode: "nearest", coordinate_transformation_mode: "asymmetric", nearest_mode: "floor" },
    { variant: "nearest" },
  ),
  node(
    "Resize",
    { X: image, roi: undefined, scales: floats([1, 1, 2, 2], [4]) },
    { mode: "linear", coordinate_transformation_mode: "half_pixel" },
    { variant: "linear, half_pixel" },
  ),
  node(
    "Resize",
    { X: image, roi: undefined, scales: floats([1, 1, 2, 2], [4]) },
    { mode: "linear", coordinate_transformation_mode: "align_corners" },
    { variant: "linear, align_corners" },
  ),
  node("Upsample", { X: image, scales: floats([1, 1, 2, 2], [4]) }, { mode: "nearest" }, { opset: 9 }),
  node("GridSample", { X: image, grid: data(2, 3, 3, 2) }, { mode: "linear" }, { opset: 20 }),
  node("Col2Im", { input: data(2, 8, 9), image_shape: ints([4, 4]), block_shape: ints([2, 2]) }),
  // Reductions
  ...[
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
    "ReduceLogSumExp",
  ].map((operator) => reduce(operator)),
  ...["ReduceProd", "ReduceLogSum"].map((operator) => reduce(operator, dataIn(0.5, 2, 2, 3, 4))),
  node("ReduceMean", { data: data(2, 3) }, { keepdims: 0 }, { variant: "over the batch" }),
  // Regularisation and losses
  node(
    "Dropout",
    { data: data(2, 3), ratio: floats([0.25]), training_mode: constant(DataType.BOOL, [1]) },
    {},
    { variant: "training" },
  ),
  node("Dropout", { data: data(2, 3) }, {}, { variant: "inference" }),
  node("SoftmaxCrossEntropyLoss", { scores: data(2, 4), labels: indices(4, 2) }),
  node(
    "SoftmaxCrossEntropyLoss",
    { scores: data(2, 4), labels: indices(4, 2), weights: floats([1, 2, 1, 2], [4]) },
    { ignore_index: 0 },
    { variant: "weights, ignore_index" },
  ),
  node("NegativeLogLikelihoodLoss", { input: data(2, 4), target: indices(4, 2) }),
  // Recurrence, control flow, sequences
  recurrent("LSTM", 4, "forward", { direction: "forward" }),
  recurrent("LSTM", 4, "bidirectional", { direction: "bidirectional" }),
  recurrent("GRU", 3, "linear_before_reset", { direction: "forward", linear_before_reset: 1 }),
  recurrent("GRU", 3, "reverse", { direction: "reverse" }),
  recurrent("RNN", 1, "forward", { direction: "forward" }),
  graph("If", { condition: { ...bools(), role: "weight" }, x: data(2, 3) }, (b) => {
    const branch = (name: string, operator: string) => {
      const inner = b.subgraph(name);
      inner.graph.output.push({ name: inner.op(operator, ["x"]) });
      return inner.graph;
    };
    const attributes = { then_branch: branch("then", "Tanh"), else_branch: branch("else", "Sigmoid") };
    return b.node("If", ["condition"], { attributes });
  }),
  graph("Loop", { trips: ints([3], []), x: data(2, 3), w: weight(3) }, (b) => {
    const body = b.subgraph("body");
    body.input("step", { elemType: DataType.INT64, shape: [] });
    body.input("going", { elemType: DataType.BOOL, shape: [] });
    body.input("state", { elemType: DataType.FLOAT, shape: ["batch", 3] });
    body.graph.output.push({ name: body.op("Identity", ["going"]) }, { name: body.mul("state", "w") });
    return b.node("Loop", ["trips", "", "x"], { attributes: { body: body.graph } });
  }),
  graph("Scan", { initial: data(2, 3), sequence: weight(4, 2, 3) }, (b) => {
    const body = b.subgraph("body");
    body.input("state", { elemType: DataType.FLOAT, shape: ["batch", 3] });
    body.input("element", { elemType: DataType.FLOAT, shape: ["batch", 3] });
    const next = body.op("Tanh", [body.add("state", "element")]);
    body.graph.output.push({ name: next }, { name: body.op("Identity", [next]) });
    return b.node("Scan", ["initial", "sequence"], {
      outputs: 2,
      attributes: { body: body.graph, num_scan_inputs: 1 },
    });
  }),
  graph("SplitToSequence", { input: data(2, 4), split: ints([2], []), one: ints([1], []) }, (b) => {
    const sequence = b.op("SplitToSequence", ["input", "split"], { axis: 1 });
    return [b.op("SequenceAt", [sequence, "one"])];
  }),
  graph("SequenceAt", { a: data(2, 3), b: data(2, 4), position: ints([1], []) }, (b) => [
    b.op("SequenceAt", [b.op("SequenceConstruct", ["a", "b"]), "position"]),
  ]),
  graph("ConcatFromSequence", { a: data(2, 3), b: data(2, 4) }, (b) => [
    b.op("ConcatFromSequence", [b.op("SequenceConstruct", ["a", "b"])], { axis: 1 }),
  ]),
  // Attention
  node("Attention", { Q: data(2, 2, 3, 4), K: data(2, 2, 3, 4), V: data(2, 2, 3, 4) }, { is_causal: 1 }, { opset: 23 }),
  node(
    "RotaryEmbedding",
    { X: data(2, 2, 3, 4), cos_cache: weight(2, 3, 2), sin_cache: weight(2, 3, 2) },
    {},
    { opset: 23 },
  ),
  // Quantisation
  graph(
    "QuantizeLinear",
    { x: data(2, 3), y_scale: floats([0.1]), y_zero_point: constant(DataType.INT8, [0]) },
    (b) => {
      const quantised = b.op("QuantizeLinear", ["x", "y_scale", "y_zero_point"]);
      return [b.op("DequantizeLinear", [quantised, "y_scale", "y_zero_point"])];
    },
  ),
  graph("DequantizeLinear", { x: data(2, 3), x_scale: floats([0.1, 0.2, 0.3], [3]) }, (b) => {
    const quantised = b.op("QuantizeLinear", ["x", "x_scale"], { axis: 1 });
    return [b.op("DequantizeLinear", [quantised, "x_scale"], { axis: 1 })];
  }),
  // Values that depend on no data
  ...["EyeLike", "RandomNormalLike", "RandomUniformLike", "Bernoulli"].map((operator) =>
    node(operator, { input: { ...weight(3, 3), range: [0, 1] } }, operator === "EyeLike" ? {} : { seed: float(1) }),
  ),
  // Contributed operators of ONNX Runtime
  ...["Gelu", "QuickGelu", "FastGelu"].map((operator) => node(operator, { X: data(2, 3) }, {}, { domain: MICROSOFT })),
  node("BiasGelu", { A: data(2, 3), B: weight(3) }, {}, { domain: MICROSOFT }),
  node("FusedMatMul", { A: data(2, 3), B: weight(4, 3) }, { transB: 1, alpha: float(0.5) }, { domain: MICROSOFT }),
  node(
    "SkipLayerNormalization",
    { input: data(2, 3, 4), skip: data(2, 3, 4), gamma: weight(4), beta: weight(4), bias: weight(4) },
    {},
    { domain: MICROSOFT },
  ),
  node(
    "SkipSimplifiedLayerNormalization",
    { input: data(2, 3, 4), skip: data(2, 3, 4), gamma: weight(4), bias: weight(4) },
    {},
    { domain: MICROSOFT },
  ),
  node("Inverse", { X: weight(3, 3) }, {}, { domain: MICROSOFT }),
  node("SimplifiedLayerNormalization", { X: data(2, 3, 4), scale: weight(4) }, { axis: -1 }),
];
