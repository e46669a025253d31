/** ONNX Runtime's own operators in graphs that it alone runs. */
import { subgraphsOf } from "./attributes.js";
import type { GraphProto, ModelProto } from "./proto.js";

/** The domain of ONNX Runtime's own operators. */
export const CONTRIBUTED = "com.microsoft";

/** The operator sets of a model, with ONNX Runtime's own if the graph needs it. */
export function importsOf(graph: GraphProto, imports: ModelProto["opsetImport"]): ModelProto["opsetImport"] {
  if (imports.some(({ domain }) => domain === CONTRIBUTED) || !usesContributed(graph)) return imports;
  return [...imports, { domain: CONTRIBUTED, version: 1 }];
}

function usesContributed(graph: GraphProto): boolean {
  return graph.node.some((node) => node.domain === CONTRIBUTED || subgraphsOf(node).some(usesContributed));
}
