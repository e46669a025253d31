/** Which nodes of a part have no kernel on CUDA, by the runtime's published table (cuda-kernels.json). */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as ort from "onnxruntime-node";
import { intOf, stringOf } from "../../src/onnx/attributes.js";
import { decodeModel, encodeModel } from "../../src/onnx/codec.js";
import { DataType, type ModelProto, type NodeProto } from "../../src/onnx/proto.js";
import { dataTypeName } from "../../src/onnx/tensor.js";
import { inferTypes, type TypeMap } from "../../src/onnx/types.js";
import { operatorName } from "./case.js";
import type { Part } from "./graphs.js";

interface KernelTable {
  readonly source: string;
  readonly kernels: Readonly<Record<string, readonly string[]>>;
}

const TABLE: KernelTable = JSON.parse(readFileSync(new URL("cuda-kernels.json", import.meta.url), "utf8"));

/** The operators, with the offending element type, that fall back to the CPU; sorted. */
export async function withoutCudaKernel(part: Part): Promise<string[]> {
  const problems = problemsOf(part.dataNodes, part.types);
  if (problems.length === 0) return [];
  // What has a kernel nowhere is replaced by its function body, whose operators may have kernels.
  const inlined = await withInlinedFunctions(part.model);
  return problemsOf(inlined.graph.node, await inferTypes(inlined));
}

function problemsOf(nodes: readonly NodeProto[], types: TypeMap): string[] {
  return [...new Set(nodes.flatMap((node) => cudaProblem(node, types) ?? []))].sort();
}

/** The model as ONNX Runtime runs it on the CPU: operators without a kernel are inlined. */
async function withInlinedFunctions(model: ModelProto): Promise<ModelProto> {
  const folder = mkdtempSync(join(tmpdir(), "fishy-docs-"));
  try {
    const file = join(folder, "inlined.onnx");
    const session = await ort.InferenceSession.create(encodeModel(model), {
      graphOptimizationLevel: "disabled",
      optimizedModelFilePath: file,
      logSeverityLevel: 3,
    });
    await session.release();
    return decodeModel(readFileSync(file));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function cudaProblem(node: NodeProto, types: TypeMap): string | undefined {
  const operator = operatorName(node.opType ?? "", node.domain);
  const kernel = TABLE.kernels[operator];
  if (!kernel) return operator;
  for (const [i, name] of node.input.entries()) {
    const type = types.get(name)?.elemType;
    const accepted = kernel[Math.min(i, kernel.length - 1)];
    if (!name || type === undefined || accepted === undefined) continue;
    if (!accepted.split(" ").includes(dataTypeName(type))) return `${operator} of ${dataTypeName(type)}`;
  }
  return refused(node, types) ? operator : undefined;
}

/** What has a kernel that refuses: the `refused` of the table. */
function refused(node: NodeProto, types: TypeMap): boolean {
  if (node.opType === "BatchNormalization") return intOf(node, "training_mode", 0) === 1;
  if (stringOf(node, "reduction", "none") === "none") return false;
  const type = types.get(node.input[0] ?? "")?.elemType;
  if (node.opType === "ScatterND") return type !== DataType.FLOAT && type !== DataType.FLOAT16;
  if (node.opType !== "ScatterElements") return false;
  return type !== DataType.FLOAT && type !== DataType.DOUBLE && type !== DataType.FLOAT16;
}
