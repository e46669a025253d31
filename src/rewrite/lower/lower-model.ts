/** Lowering of a whole model, in as many passes as its control flow is deep. */
import type { RandomSource } from "../../families/family.js";
import type { ValueType } from "../../onnx/builder.js";
import { foldConstants } from "../../onnx/fold.js";
import type { ModelProto, NodeProto } from "../../onnx/proto.js";
import { inferTypes, type TypeMap } from "../../onnx/types.js";
import { type LoweredGraph, lowerGraph } from "./lowering.js";

export interface LoweredModel {
  readonly types: TypeMap;
  readonly runningStatistics: LoweredGraph["runningStatistics"];
  /** Why nodes that have a lowering were kept. */
  readonly refusals: ReadonlyMap<NodeProto, string>;
}

/** Operators whose lowering hangs on values being known. */
const NEEDS_CONSTANTS: ReadonlySet<string> = new Set(["If", "Loop", "Scan", "LSTM", "GRU", "RNN"]);

/** Whether anything is to be gained from evaluating what never changes. */
function needsConstants({ graph }: ModelProto, types: TypeMap): boolean {
  if (graph.node.some((node) => NEEDS_CONSTANTS.has(node.opType ?? ""))) return true;
  return [...types.values()].some(({ shape }) => !shape || shape.includes(null));
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
): Promise<LoweredModel> {
  const { graph } = model;
  const runningStatistics: { name: string; next: string }[] = [];
  const shapes = new Map<string, NonNullable<ValueType["shape"]>>();
  const infer = () => inferTypes(model, shapes);
  let types = await infer();
  // Inferred shapes of the source may be narrower or staler than what the lowered graph has.
  graph.valueInfo = [];
  for (;;) {
    if (needsConstants(model, types)) while (await foldConstants(model, types)) types = await infer();
    const lowered = lowerGraph(graph, types, random, trainable);
    runningStatistics.push(...lowered.runningStatistics);
    for (const [name, shape] of lowered.shapes) shapes.set(name, shape);
    if (lowered.changed) types = await infer();
    // Nodes that are kept are tried in every pass, so the last pass knows all refusals.
    if (!lowered.unfinished) return { types, runningStatistics, refusals: lowered.refusals };
  }
}
