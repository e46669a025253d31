/** A value whose gradient is taken to be zero: an Identity that reverse mode does not go through. */
import type { GraphBuilder } from "../onnx/builder.js";
import type { NodeProto } from "../onnx/proto.js";

const MARK = "fishy: no gradient";

/** `x`, as a constant to everything that is differentiated. */
export function stopGradient(b: GraphBuilder, x: string): string {
  const stopped = b.op("Identity", [x], {}, "stop");
  (b.graph.node.at(-1) as NodeProto).docString = MARK;
  return stopped;
}

export function isStop(node: NodeProto): boolean {
  return node.opType === "Identity" && node.docString === MARK;
}
