/**
 * uint32 arithmetic said in int64: ONNX Runtime had no uint32 kernels of Add, Sub, Mul and Div when its training builds
 * ended. A remainder by 2³² after each step gives the same numbers, also where the int64 product wraps.
 */
import { attributeOf, attributesFrom, intOf } from "../onnx/attributes.js";
import { withFields } from "../onnx/codec.js";
import { DataType, type GraphProto, type NodeProto, type TensorProto } from "../onnx/proto.js";
import { dimsOf, numbersOf, tensorFromNumbers } from "../onnx/tensor.js";
import type { TypeMap } from "../onnx/types.js";

const WRAPPING: ReadonlySet<string> = new Set(["Add", "Sub", "Mul"]);
const MODULUS = "two_to_the_32";

/**
 * Replaces uint32 by int64 in a graph without subgraphs.
 * @param types of the graph's values.
 */
export function withoutUint32(graph: GraphProto, types: TypeMap): GraphProto {
  const isUint32 = (name: string) => types.get(name)?.elemType === DataType.UINT32;
  if (![...types.values()].some(({ elemType }) => elemType === DataType.UINT32)) return graph;
  const node = graph.node.flatMap((each): NodeProto[] => {
    const [output = ""] = each.output;
    if (!isUint32(output)) return [each];
    if (WRAPPING.has(each.opType ?? "")) return wrapped(each, output);
    if (each.opType === "Cast" && intOf(each, "to") === DataType.UINT32) {
      return wrapped(withFields(each, { attribute: attributesFrom({ to: DataType.INT64 }) }), output);
    }
    const value = attributeOf(each, "value");
    if (value?.t?.dataType !== DataType.UINT32) return [each];
    return [withFields(each, { attribute: attributesFrom({ value: widened(value.t) }) })];
  });
  return withFields(graph, {
    node,
    initializer: [
      ...graph.initializer.map((tensor) => (tensor.dataType === DataType.UINT32 ? widened(tensor) : tensor)),
      tensorFromNumbers(MODULUS, DataType.INT64, [], [2 ** 32]),
    ],
  });
}

function wrapped(node: NodeProto, output: string): NodeProto[] {
  const wide = `${output}/wide`;
  return [
    withFields(node, { output: [wide] }),
    // A remainder has the sign of the divisor: a difference below zero wraps as well.
    { opType: "Mod", name: `${output}/mod`, input: [wide, MODULUS], output: [output], attribute: [] },
  ];
}

function widened(tensor: TensorProto): TensorProto {
  return tensorFromNumbers(tensor.name ?? "", DataType.INT64, dimsOf(tensor), numbersOf(tensor));
}
