/** What a node costs in a forward pass: floating-point operations, and elements that it makes. */
import { intOf, stringOf } from "../onnx/attributes.js";
import type { NodeProto } from "../onnx/proto.js";
import { elementCount } from "../onnx/tensor.js";
import type { TypeMap } from "../onnx/types.js";

/** Dimensions of a value by its name; undefined when one of them is not known. */
export type Shapes = (name: string) => readonly number[] | undefined;

/** Operators that compute nothing: they move, choose or describe values. */
const FREE: ReadonlySet<string> = new Set(
  (
    "Reshape Transpose Squeeze Unsqueeze Flatten Identity Slice Split Concat Gather GatherElements GatherND Pad Expand Tile " +
    "Shape Size Constant ConstantOfShape Range Cast Dropout ScatterElements ScatterND Where Equal Less Greater LessOrEqual " +
    "GreaterOrEqual Not And Or Xor OneHot NonZero DepthToSpace SpaceToDepth If Loop Scan"
  ).split(" "),
);

/**
 * The shapes of values, where `sizes` gives numbers for all their symbols.
 * @param types the later ones are asked where the earlier do not know
 */
export function shapesFrom(types: readonly TypeMap[], sizes: ReadonlyMap<string, number>): Shapes {
  return (name) => {
    for (const known of types) {
      const dims = known.get(name)?.shape?.map((dim) => (typeof dim === "string" ? sizes.get(dim) : dim));
      if (dims?.every((dim) => typeof dim === "number")) return dims as number[];
    }
    return undefined;
  };
}

/**
 * Floating-point operations of a node: 2 for each multiplication and addition of a product, 1 for each element of other
 * operators (of a reduction's input), 0 for those that only move values. Undefined when a shape is not known.
 */
export function flopsOf(node: NodeProto, shapes: Shapes): number | undefined {
  const { opType = "", input, output } = node;
  if (FREE.has(opType)) return 0;
  const result = shapes(output[0] ?? "");
  const [first, second] = [shapes(input[0] ?? ""), shapes(input[1] ?? "")];
  switch (opType) {
    case "Gemm": {
      const inner = first?.[intOf(node, "transA", 0) === 1 ? 0 : 1];
      return result && inner !== undefined ? 2 * elementCount(result) * inner : undefined;
    }
    case "MatMul": {
      const inner = first?.at(-1);
      return result && inner !== undefined ? 2 * elementCount(result) * inner : undefined;
    }
    case "Conv":
      return result && second ? 2 * elementCount(result) * elementCount(second.slice(1)) : undefined;
    case "ConvTranspose":
      return first && second ? 2 * elementCount(first) * elementCount(second.slice(1)) : undefined;
    case "Einsum":
      return einsumFlops(stringOf(node, "equation", ""), input.map(shapes));
    default: {
      const shape = /^Reduce|Pool$|^ArgM|^CumSum$/.test(opType) ? first : result;
      return shape && elementCount(shape);
    }
  }
}

/** Elements that a node makes; 0 where it only passes on its input's under another shape. */
export function elementsOf({ opType = "", output }: NodeProto, shapes: Shapes): number | undefined {
  if (/^(Reshape|Squeeze|Unsqueeze|Flatten|Identity|Shape|Size|Constant)$/.test(opType)) return 0;
  const counts = output.filter(Boolean).map((name) => {
    const shape = shapes(name);
    return shape && elementCount(shape);
  });
  return counts.every((count) => count !== undefined)
    ? counts.reduce((sum, count) => (sum as number) + (count as number), 0)
    : undefined;
}

function einsumFlops(equation: string, operands: readonly (readonly number[] | undefined)[]): number | undefined {
  const terms = equation.replaceAll(" ", "").split("->")[0]?.split(",") ?? [];
  const sizes = new Map<string, number>();
  for (const [i, term] of terms.entries()) {
    const dims = operands[i];
    if (!dims || term.length !== dims.length) return undefined;
    for (const [k, letter] of [...term].entries()) sizes.set(letter, dims[k] as number);
  }
  return 2 * elementCount([...sizes.values()]);
}
