/** A graph as inference runs it: dropout passes its data through, batch normalisation takes its running statistics. */
import { subgraphsOf } from "./attributes.js";
import { cloneModel, withFields } from "./codec.js";
import type { GraphProto, ModelProto, NodeProto } from "./proto.js";
import { isDefaultDomain } from "./versions.js";

/** Puts the nodes of `graph` (of opset 14 or newer, in which operators say that they train) and of its subgraphs into inference mode, in place. */
export function toInferenceMode(graph: GraphProto): void {
  graph.node = graph.node.flatMap(inferenceNodes);
}

/**
 * A model, of any opset from 7 on, as inference runs it; the model itself when it runs so already.
 * @returns a model whose other nodes are those of `model`.
 */
export function inInferenceMode(model: ModelProto): ModelProto {
  const graphs = [model.graph, ...model.functions];
  if (!graphs.some((graph) => graph.node.some(trains))) return model;
  const copy = cloneModel(model);
  for (const graph of [copy.graph, ...copy.functions]) {
    const outputs = graph.output.map((output) => (typeof output === "string" ? output : (output.name ?? "")));
    const used = new Set([...outputs, ...graph.node.flatMap(inputsOf)]);
    graph.node = graph.node.flatMap((node) => {
      if (!trains(node)) return [node];
      // Nobody asks for most of the statistics that training hands on.
      return inferenceNodes(node).filter((made, i) => i === 0 || made.output.some((name) => used.has(name)));
    });
  }
  return copy;
}

/** Whether a node, or one inside of it, behaves otherwise in training. */
function trains(node: NodeProto): boolean {
  if (subgraphsOf(node).some((inner) => inner.node.some(trains))) return true;
  if (!isDefaultDomain(node.domain)) return false;
  if (node.opType === "Dropout") return node.input.length > 2;
  // Before opset 14 more than one output says it.
  return node.opType === "BatchNormalization" && (node.output.length > 1 || node.attribute.some(saysTraining));
}

function saysTraining({ name, i }: NodeProto["attribute"][number]): boolean {
  return name === "training_mode" && Number(i ?? 0) !== 0;
}

/** What a node reads, and what the nodes inside of it read. */
function inputsOf(node: NodeProto): string[] {
  const inside = subgraphsOf(node).flatMap((graph) => [
    ...graph.node.flatMap(inputsOf),
    ...graph.output.map(({ name = "" }) => name),
  ]);
  return [...node.input, ...inside];
}

function inferenceNodes(node: NodeProto): NodeProto[] {
  for (const inner of subgraphsOf(node)) toInferenceMode(inner);
  if (!isDefaultDomain(node.domain)) return [node];
  // Without its third input, the mode, Dropout passes everything through; its mask is all true then.
  if (node.opType === "Dropout") return [withFields(node, { input: node.input.slice(0, 2) })];
  if (node.opType !== "BatchNormalization") return [node];
  const [y, ...statistics] = node.output;
  const attribute = node.attribute.filter(({ name }) => name !== "training_mode");
  // In inference the next running statistics are those that were; before opset 14 the batch's follow them.
  const kept = statistics.flatMap((output, i): NodeProto[] =>
    output
      ? [
          {
            opType: "Identity",
            name: output,
            input: [node.input[3 + (i % 2)] as string],
            output: [output],
            attribute: [],
          },
        ]
      : [],
  );
  return [withFields(node, { output: [y as string], attribute }), ...kept];
}
