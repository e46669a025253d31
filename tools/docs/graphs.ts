/** What fishy makes of a case: its forward nodes and its backward nodes, each as a model of its own. */
import { differentiate } from "../../src/autodiff/reverse.js";
import { counterRandom } from "../../src/families/random.js";
import { GraphBuilder, valueInfo } from "../../src/onnx/builder.js";
import { allNames, capturedBy, prune, topologicalOrder } from "../../src/onnx/graph.js";
import { DataType, type GraphProto, type ModelProto, type NodeProto } from "../../src/onnx/proto.js";
import { dataTypeName } from "../../src/onnx/tensor.js";
import { inferTypes, type TypeMap } from "../../src/onnx/types.js";
import { toProgramOpset } from "../../src/onnx/upgrade/upgrade.js";
import { shapeArithmetic } from "../../src/placement/shape-arithmetic.js";
import { lowerModel } from "../../src/rewrite/lower/lower-model.js";
import { withTimeMajorRecurrences } from "../../src/rewrite/lower/time-major.js";
import { type Case, caseName, modelOfCase, operatorName } from "./case.js";

const SEED = "seed";

/** A graph of forward or of backward nodes. */
export interface Part {
  readonly model: ModelProto;
  /** Types of everything in the graph. */
  readonly types: TypeMap;
  /** The nodes that compute with data. */
  readonly dataNodes: readonly NodeProto[];
  /** The nodes that compute shapes and scalars from shapes and the seed: they may stay on the CPU on every device. */
  readonly shapeNodes: readonly NodeProto[];
}

export interface CaseGraphs {
  readonly forward: Part;
  /** Undefined when every gradient is zero. Reads the forward values that it needs as inputs. */
  readonly backward: Part | undefined;
  /** Operands with a gradient. */
  readonly differentiated: readonly string[];
}

/** Rewrites a case as `rewrite` does, seeded at every float output. */
export async function graphsOf(example: Case): Promise<CaseGraphs> {
  try {
    return await emit(example);
  } catch (error) {
    throw new Error(`the case '${caseName(example)}' of tools/docs/catalogue.ts fails`, { cause: error });
  }
}

async function emit(example: Case): Promise<CaseGraphs> {
  const wrt = Object.entries(example.operands)
    .filter(([, { role, type }]) => role !== "constant" && type === DataType.FLOAT)
    .map(([name]) => name);
  const model = await toProgramOpset(withTimeMajorRecurrences(modelOfCase(example)));
  const { graph } = model;
  graph.input.push(valueInfo(SEED, { elemType: DataType.INT64, shape: [] }));
  let stream = 0;
  const { types, refusals } = await lowerModel(model, () => counterRandom(SEED, stream++), wrt, {
    straightThrough: true,
  });
  if (refusals.size > 0) throw new Error([...refusals.values()].join("; "));
  prune(graph);
  const forward = { ...graph, node: [...topologicalOrder(graph)], initializer: [...graph.initializer] };

  const b = new GraphBuilder(graph);
  const seeds = new Map<string, string>();
  for (const { name = "" } of forward.output) {
    const type = types.get(name);
    if (type?.elemType === DataType.FLOAT) seeds.set(name, b.input(`${name}_cotangent`, type));
  }
  const gradients = differentiate({ builder: b, forward, types, wrt, seeds });
  graph.output = [...new Set(gradients.values())].map((name) => ({ name }));
  const allTypes = gradients.size > 0 ? await inferTypes(model) : types;
  return {
    forward: partOf(model, forward, forward.node, allTypes),
    backward: gradients.size > 0 ? backwardOf(model, new Set(forward.node), allTypes) : undefined,
    differentiated: wrt.filter((name) => gradients.has(name)),
  };
}

function backwardOf(model: ModelProto, forward: ReadonlySet<NodeProto>, types: TypeMap): Part {
  const graph: GraphProto = { ...model.graph, initializer: [...model.graph.initializer] };
  prune(graph);
  const nodes = graph.node.filter((node) => !forward.has(node));
  const made = new Set([
    ...nodes.flatMap((node) => node.output),
    ...graph.initializer.map((tensor) => tensor.name ?? ""),
    ...graph.input.map((input) => input.name ?? ""),
  ]);
  const read = [...nodes.flatMap((node) => [...node.input, ...capturedBy(node)]), ...graph.output.map((o) => o.name)];
  for (const name of new Set(read)) {
    const type = types.get(name ?? "");
    if (name && type && !made.has(name)) graph.input.push(valueInfo(name, type));
  }
  return partOf(model, graph, nodes, types);
}

function partOf(model: ModelProto, graph: GraphProto, nodes: readonly NodeProto[], types: TypeMap): Part {
  const own: GraphProto = { ...graph, node: [...nodes], initializer: [...graph.initializer], valueInfo: [] };
  prune(own);
  const used = allNames({ ...own, input: [], name: "" });
  own.input = own.input.filter(({ name }) => used.has(name ?? ""));
  const shapeNodes = shapeArithmetic(own, types, [SEED]);
  return {
    model: { ...model, graph: own },
    types,
    dataNodes: own.node.filter((node) => !shapeNodes.has(node)),
    shapeNodes: [...shapeNodes],
  };
}

/** The operators of a part with the element types of their inputs and their number, sorted: what a measurement holds for. */
export function operatorsOf(part: Part): string {
  const describe = (node: NodeProto) => {
    const types = node.input.map((name) => typeName(name, part.types));
    return `${operatorName(node.opType ?? "", node.domain)}(${types.join(", ")})`;
  };
  const counts = new Map<string, number>();
  for (const node of part.model.graph.node) counts.set(describe(node), (counts.get(describe(node)) ?? 0) + 1);
  return [...counts]
    .map(([operator, count]) => (count > 1 ? `${count} ${operator}` : operator))
    .sort()
    .join("; ");
}

/** The element type of a value; empty where it is left out or unknown. */
export function typeName(name: string, types: TypeMap): string {
  const type = types.get(name)?.elemType;
  return name && type !== undefined ? dataTypeName(type) : "";
}
