/** What ONNX Runtime folds before it places nodes. */
import { capturedBy, topologicalOrder } from "../onnx/graph.js";
import type { GraphProto } from "../onnx/proto.js";

/** Values that are the same in every run: initializers that nothing feeds, and what deterministic nodes make of them. */
export function constantValues(graph: GraphProto): Set<string> {
  const inputs = new Set(graph.input.map(({ name }) => name));
  const names = graph.initializer.map(({ name }) => name ?? "").filter((name) => !inputs.has(name));
  const known = new Set(names);
  for (const node of topologicalOrder(graph)) {
    if (/^(Random|Bernoulli|Multinomial)/.test(node.opType ?? "")) continue;
    if (![...node.input, ...capturedBy(node)].every((name) => !name || known.has(name))) continue;
    for (const name of node.output) if (name) known.add(name);
  }
  return known;
}
