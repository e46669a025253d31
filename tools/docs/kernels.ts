/** Which nodes of a part have no kernel on CUDA, by the runtime's published table (src/placement/cuda-kernels.ts). */
import type { NodeProto } from "../../src/onnx/proto.js";
import { inferTypes, type TypeMap } from "../../src/onnx/types.js";
import { asOptimised } from "../../src/placement/optimised.js";
import { misplacedNodes } from "../../src/placement/placement.js";
import type { Part } from "./graphs.js";

/** The operators, with the offending element type, that fall back to the CPU; sorted. */
export async function withoutCudaKernel(part: Part): Promise<string[]> {
  const problems = problemsOf(part, part.dataNodes, part.types);
  if (problems.length === 0) return [];
  // What has a kernel nowhere is replaced by its function body, whose operators may have kernels.
  const model = await asOptimised(part.model, false);
  return problemsOf({ ...part, model }, model.graph.node, await inferTypes(model));
}

function problemsOf({ model }: Part, nodes: readonly NodeProto[], types: TypeMap): string[] {
  return [...new Set(misplacedNodes(nodes, model.graph, types, "cuda").map(({ what }) => what))].sort();
}
