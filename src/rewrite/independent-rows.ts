/** Whether examples pass through operators without meeting each other: what a pass over a part of the batch rests on. */
import { intOf, stringOf } from "../onnx/attributes.js";
import type { Dim } from "../onnx/builder.js";
import { divide, multiply } from "../onnx/dimensions.js";
import { type GraphIndex, topologicalOrder } from "../onnx/graph.js";
import type { GraphProto, NodeProto } from "../onnx/proto.js";
import { numbersOf } from "../onnx/tensor.js";
import type { TypeMap } from "../onnx/types.js";

/** Where a value has its examples: an axis that is counted as [outer, example, inner]. */
export interface BatchAxis {
  readonly axis: number;
  readonly outer: Dim;
  readonly inner: Dim;
}

/** A batch axis that shapes do not tell for certain. */
type Layout = BatchAxis | "unclear" | undefined;

/** The batch axes of all values of a graph. */
export class BatchLayouts {
  private readonly layouts = new Map<string, Layout>();

  /** @param batch the symbol of the batch's dimension. */
  constructor(
    graph: GraphProto,
    readonly types: TypeMap,
    private readonly batch: string,
  ) {
    for (const { name = "" } of graph.input) this.layouts.set(name, this.plain(name));
    for (const node of topologicalOrder(graph)) {
      for (const name of node.output) if (name) this.layouts.set(name, this.made(node, name));
    }
  }

  /** Undefined where no dimension is the batch's. */
  of(name: string): Layout {
    return this.layouts.get(name);
  }

  /** The layout by the shape alone, which tells only how many entries of which axis belong to an example. */
  private byShape(name: string): { readonly axis: number; readonly factor: Dim } | "unclear" | undefined {
    const shape = this.types.get(name)?.shape;
    if (!shape) return this.types.has(name) ? "unclear" : undefined;
    const isBatch = (dim: Dim) => typeof dim === "string" && dim.split(/[^\w.]+/).includes(this.batch);
    const axes = shape.flatMap((dim, axis) => (isBatch(dim) ? [axis] : []));
    const [axis] = axes;
    if (axis === undefined) return shape.includes(null) ? "unclear" : undefined;
    const factor = divide(shape[axis] as Dim, this.batch);
    return axes.length === 1 && factor !== null ? { axis, factor } : "unclear";
  }

  private plain(name: string): Layout {
    const shape = this.byShape(name);
    if (typeof shape !== "object") return shape;
    return shape.factor === 1 ? { axis: shape.axis, outer: 1, inner: 1 } : "unclear";
  }

  private made(node: NodeProto, name: string): Layout {
    const shape = this.byShape(name);
    if (typeof shape !== "object") return shape;
    const { axis, factor } = shape;
    const from = node.input.map((input) => this.of(input)).find((layout) => layout !== undefined);
    if (from === "unclear") return "unclear";
    if (from && (node.opType === "Reshape" || node.opType === "Flatten")) {
      // What counts before the example stays: some of it as dimensions of its own, the rest within this one.
      const before = multiply([this.before(node.input[0] ?? "", from.axis), from.outer]);
      const outer = divide(before, this.before(name, axis));
      const inner = outer === null ? null : divide(factor, outer);
      return outer === null || inner === null ? "unclear" : { axis, outer, inner };
    }
    if (factor === 1) return { axis, outer: 1, inner: 1 };
    return from && multiply([from.outer, from.inner]) === factor ? { ...from, axis } : "unclear";
  }

  /** The product of the dimensions before an axis. */
  private before(name: string, axis: number): Dim {
    return multiply((this.types.get(name)?.shape ?? []).slice(0, axis));
  }
}

/** Operators that compute every element from those at the same place. */
const ELEMENTWISE = new Set(
  (
    "Abs Add And Asin Asinh Acos Acosh Atan Atanh BitShift Cast Ceil Celu Clip Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater " +
    "GreaterOrEqual HardSigmoid HardSwish Identity LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow " +
    "Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Tan Tanh ThresholdedRelu Where Xor Dropout " +
    "BiasGelu FastGelu QuickGelu"
  ).split(" "),
);
/** Operators with examples on their first axis, whatever they do along the others. */
const IMAGES = new Set(
  (
    "Conv ConvTranspose MaxPool AveragePool LpPool GlobalMaxPool GlobalAveragePool GlobalLpPool BatchNormalization " +
    "InstanceNormalization GroupNormalization LRN DepthToSpace SpaceToDepth Resize Pad GridSample Col2Im"
  ).split(" "),
);
/** Operators that go along one axis, which must not be the examples'. */
const ALONG_AXIS = new Set("Softmax LogSoftmax Hardmax CumSum Concat Split Gather TopK".split(" "));
/** Normalisations from an axis to the last. */
const NORMALISING = new Set(
  "LayerNormalization RMSNormalization SkipLayerNormalization SimplifiedLayerNormalization".split(" "),
);
/** Operators whose output has its batch axis only if they leave it alone. */
const SHAPE_TELLS = new Set(
  "MatMul Gemm Transpose Squeeze Unsqueeze Expand ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSum ReduceLogSumExp".split(
    " ",
  ),
);

/**
 * Why an operator may mix examples; undefined when it cannot.
 * @param varies whether a value depends on the data.
 */
export function mixing(
  index: GraphIndex,
  layouts: BatchLayouts,
  node: NodeProto,
  varies: (name: string) => boolean,
): string | undefined {
  const inputs = node.input.map((name) => (name ? layouts.of(name) : undefined));
  const unclear = inputs.indexOf("unclear");
  if (unclear >= 0) return `the shape of '${node.input[unclear]}' does not tell where its examples are`;
  const whole = node.input.find((name, i) => name && inputs[i] === undefined && varies(name));
  if (whole !== undefined) return WHOLE(whole);
  const rows = inputs.flatMap((layout, i) => (typeof layout === "object" ? [{ ...layout, i }] : []));
  if (rows.length === 0) return undefined;
  for (const name of node.output) {
    if (!name || typeof layouts.of(name) === "object") continue;
    if (layouts.of(name) === undefined) return WHOLE(name);
    return `the shape of '${name}' does not tell where its examples are`;
  }
  return mixes(index, layouts, node, rows) ? "it may mix examples" : undefined;
}

const WHOLE = (name: string) => `'${name}' is computed from the whole batch, as BatchNormalization's statistics are`;

type Row = BatchAxis & { readonly i: number };

function mixes(index: GraphIndex, layouts: BatchLayouts, node: NodeProto, rows: readonly Row[]): boolean {
  const opType = node.opType ?? "";
  const [first] = rows as [Row];
  const rank = (i: number) => layouts.types.get(node.input[i] ?? "")?.shape?.length ?? 0;
  const positive = (axis: number, i: number) => (axis < 0 ? axis + rank(i) : axis);
  const along = (axis: number) => rows.some((row) => positive(axis, row.i) === row.axis);
  const alike = rows.every(({ outer, inner }) => outer === first.outer && inner === first.inner);
  if (!alike) return true;
  if (ELEMENTWISE.has(opType) || SHAPE_TELLS.has(opType)) return false;
  if (IMAGES.has(opType)) return first.i !== 0 || movesBatch(node, layouts);
  if (NORMALISING.has(opType)) return positive(intOf(node, "axis", -1), first.i) <= first.axis;
  if (opType === "Flatten" || opType === "Reshape") return first.i !== 0;
  if (opType === "Einsum") return einsumMixes(node, rows);
  if (opType === "Slice") {
    const axes = index.constant(node.input[3] ?? "");
    return !axes || numbersOf(axes).some(along);
  }
  if (opType === "CumSum") {
    const axis = index.constant(node.input[1] ?? "");
    return !axis || numbersOf(axis).some(along);
  }
  if (opType === "Gather" && first.i === 1) return rows.length > 1;
  if (opType === "Concat" || opType === "Split" || opType === "Gather") return along(intOf(node, "axis", 0));
  return ALONG_AXIS.has(opType) ? along(intOf(node, "axis", -1)) : true;
}

/** Whether the examples are not on the first axis of the input and of the output, as many there as here. */
function movesBatch(node: NodeProto, layouts: BatchLayouts): boolean {
  const [before, after] = [layouts.of(node.input[0] ?? ""), layouts.of(node.output[0] ?? "")];
  if (typeof before !== "object" || typeof after !== "object") return true;
  return before.axis !== 0 || after.axis !== 0 || before.outer !== after.outer || before.inner !== after.inner;
}

function einsumMixes(node: NodeProto, rows: readonly Row[]): boolean {
  const equation = stringOf(node, "equation", "").replaceAll(" ", "");
  const [inputs = "", output] = equation.split("->");
  if (equation.includes(".") || output === undefined) return true;
  const letters = new Set(rows.map(({ i, axis }) => inputs.split(",")[i]?.[axis]));
  const [letter] = letters;
  return letters.size !== 1 || letter === undefined || !output.includes(letter);
}
