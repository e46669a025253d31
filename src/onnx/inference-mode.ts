/** A graph as inference runs it: dropout passes its data through, batch normalisation takes its running statistics. */
import { subgraphsOf } from "./attributes.js";
import { withFields } from "./codec.js";
import type { GraphProto, NodeProto } from "./proto.js";
import { isDefaultDomain } from "./versions.js";

/** Puts the nodes of `graph` (of opset 14 or newer, in which operators say that they train) and of its subgraphs into inference mode, in place. */
export function toInferenceMode(graph: GraphProto): void {
  graph.node = graph.node.flatMap(inferenceNodes);
}

function inferenceNodes(node: NodeProto): NodeProto[] {
  for (const inner of subgraphsOf(node)) toInferenceMode(inner);
  if (!isDefaultDomain(node.domain)) return [node];
  // Without its third input, the mode, Dropout passes everything through; its mask is all true then.
  if (node.opType === "Dropout") return [withFields(node, { input: node.input.slice(0, 2) })];
  if (node.opType !== "BatchNormalization") return [node];
  const [y, ...statistics] = node.output;
  const attribute = node.attribute.filter(({ name }) => name !== "training_mode");
  // In inference the next running statistics are those that were.
  const kept = statistics.flatMap((output, i): NodeProto[] =>
    output
      ? [{ opType: "Identity", name: output, input: [node.input[3 + i] as string], output: [output], attribute: [] }]
      : [],
  );
  return [withFields(node, { output: [y as string], attribute }), ...kept];
}
