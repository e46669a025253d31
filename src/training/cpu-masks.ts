/**
 * The gradient of Relu as a product with a mask. The program has dy where y > 0 and 0 elsewhere, Greater and Where, of
 * which ONNX Runtime's Where makes three passes and two copies on the CPU; with y ≥ 0 two Casts make the mask, and both
 * take two thirds of the time. A product carries an infinite or missing dy into the zeros; so it stands only behind the
 * products of matrices and convolutions, where such a dy would have spoilt all of the weights' gradient anyway.
 */
import { GraphBuilder } from "../onnx/builder.js";
import { DataType, type GraphProto } from "../onnx/proto.js";
import { numbersOf } from "../onnx/tensor.js";

const PRODUCTS = new Set(["Gemm", "MatMul", "Conv", "ConvTranspose"]);

/** Replaces them in `graph`, in place; nodes of other graphs that share them stay as they are. */
export function reluMasksForCpu(graph: GraphProto): void {
  const zeros = new Set(
    graph.initializer
      .filter(({ dataType, dims }) => dataType === DataType.FLOAT && dims.length === 0)
      .filter((tensor) => numbersOf(tensor)[0] === 0)
      .map(({ name }) => name ?? ""),
  );
  const standard = graph.node.filter(({ domain }) => !domain);
  const made = (opType: string) =>
    new Map(standard.filter((node) => node.opType === opType).map((node) => [node.output[0], node]));
  const [rectified, compared] = [made("Relu"), made("Greater")];
  const products = new Set(standard.filter(({ opType }) => PRODUCTS.has(opType ?? "")).map(({ output }) => output[0]));
  const { node: nodes } = graph;
  const b = new GraphBuilder(graph);
  graph.node = [];
  for (const node of nodes) {
    const [condition, dy, otherwise] = node.input as [string, string, string];
    const comparison = node.opType === "Where" && !node.domain ? compared.get(condition) : undefined;
    const y = comparison && zeros.has(comparison.input[1] ?? "") ? comparison.input[0] : undefined;
    if (y === undefined || !rectified.has(y) || !zeros.has(otherwise) || !products.has(dy)) {
      graph.node.push(node);
      continue;
    }
    const output = node.output[0] as string;
    b.scope(output, () => {
      const mask = b.cast(b.cast(y, DataType.BOOL), DataType.FLOAT);
      b.node("Mul", [dy, mask], { outputs: [output] });
    });
  }
}
