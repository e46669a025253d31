/** Lowering of a whole model, in as many passes as its control flow is deep. */
import type { RandomSource } from "../../families/family.js";
import { type ValueType, valueInfo } from "../../onnx/builder.js";
import { foldConstants } from "../../onnx/fold.js";
import type { ModelProto, NodeProto } from "../../onnx/proto.js";
import { inferTypesAndFindings, type TypeMap } from "../../onnx/types.js";
import { type LoweredGraph, type LoweringOptions, lowerGraph } from "./lowering.js";

export interface LoweredModel {
  readonly types: TypeMap;
  readonly runningStatistics: LoweredGraph["runningStatistics"];
  /** Why nodes that have a lowering were kept. */
  readonly refusals: ReadonlyMap<NodeProto, string>;
}

/** Operators whose lowering hangs on values being known. */
const NEEDS_CONSTANTS: ReadonlySet<string> = new Set(["If", "Loop", "Scan", "LSTM", "GRU", "RNN"]);

/** Inputs that the operator's gradient has to know: exporters compute some of them from constants. */
const KNOWN_INPUTS: Readonly<Record<string, readonly number[]>> = {
  Slice: [3, 4],
  Pad: [1, 3],
  Resize: [2, 3],
  Squeeze: [1],
  Unsqueeze: [1],
};

/** Whether anything is to be gained from evaluating what never changes. */
function needsConstants({ graph }: ModelProto, types: TypeMap): boolean {
  if (graph.node.some((node) => NEEDS_CONSTANTS.has(node.opType ?? ""))) return true;
  const computed = new Set(graph.node.flatMap((node) => (node.opType === "Constant" ? [] : node.output)));
  const isComputed = (node: NodeProto) =>
    KNOWN_INPUTS[node.opType ?? ""]?.some((i) => Boolean(node.input[i]) && computed.has(node.input[i] as string)) ??
    false;
  return graph.node.some(isComputed) || [...types.values()].some(({ shape }) => !shape || shape.includes(null));
}

/**
 * Lowers the graph of `model` in place.
 * @param random makes a stream of uniforms of its own for every caller.
 * @param trainable initializers that may train.
 */
export async function lowerModel(
  model: ModelProto,
  random: () => RandomSource,
  trainable: readonly string[],
  options: LoweringOptions = {},
): Promise<LoweredModel> {
  const { graph } = model;
  const runningStatistics: { name: string; next: string }[] = [];
  const shapes = new Map<string, NonNullable<ValueType["shape"]>>();
  const infer = () => inferTypesAndFindings(model, shapes);
  let { types, found } = await infer();
  // Inferred shapes of the source may be narrower or staler than what the lowered graph has.
  graph.valueInfo = [];
  for (;;) {
    if (needsConstants(model, types)) while (await foldConstants(model, types)) ({ types, found } = await infer());
    const lowered = lowerGraph(graph, types, random, trainable, options);
    runningStatistics.push(...lowered.runningStatistics);
    for (const [name, shape] of lowered.shapes) shapes.set(name, shape);
    if (lowered.changed) ({ types, found } = await infer());
    // Nodes that are kept are tried in every pass, so the last pass knows all refusals.
    if (lowered.unfinished) continue;
    // Where ONNX Runtime loses dimensions it takes quadratic time to load, and shares less memory.
    graph.valueInfo = [...found].map(([name, shape]) => valueInfo(name, { ...(types.get(name) as ValueType), shape }));
    return { types, runningStatistics, refusals: lowered.refusals };
  }
}
