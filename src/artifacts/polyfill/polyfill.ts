/**
 * A training model made runnable on inference builds of ONNX Runtime: its training operators become model-local
 * functions of standard operators.
 */
import { FishyError } from "../../errors.js";
import { attributesFrom } from "../../onnx/attributes.js";
import { emptyGraph, GraphBuilder } from "../../onnx/builder.js";
import { cloneModel, withFields } from "../../onnx/codec.js";
import { GraphIndex, prune } from "../../onnx/graph.js";
import type { FunctionProto, ModelProto, NodeProto } from "../../onnx/proto.js";
import { declaredType, inferTypes, type TypeMap } from "../../onnx/types.js";
import { toProgramOpset } from "../../onnx/upgrade/upgrade.js";
import { isDefaultDomain, PROGRAM_OPSET } from "../../onnx/versions.js";
import { sliceForward, toStandardOperators } from "../forward-graph.js";
import { bufferName } from "../training-names.js";
import { BODIES } from "./bodies.js";
import { NoBody } from "./body.js";

const MICROSOFT = "com.microsoft";
/** Operators of com.microsoft that inference builds have themselves. */
const BUILT_IN: ReadonlySet<string> = new Set(
  "BiasGelu FastGelu FusedConv FusedGemm FusedMatMul Gelu QuickGelu TransposeMatMul Trilu".split(" "),
);
/** Gradient operators that ONNX Runtime puts into the default domain, where functions cannot be. */
const MOVED: ReadonlySet<string> = new Set(["AveragePoolGrad", "MaxPoolGrad"]);

/** The output that takes the place of writing into a buffer. */
export const nextBufferName = (parameter: string): string => `${bufferName(parameter)}.next`;

/**
 * Polyfills a training model. Accumulators, which write in place, give the next value of their buffers as further
 * outputs, `<parameter>_grad.accumulation.buffer.next`; running statistics of BatchNormalization are outputs as well.
 * @throws FishyError listing every operator that cannot be written.
 */
export async function polyfill(source: ModelProto): Promise<ModelProto> {
  const model = cloneModel(await toProgramOpset(source));
  const { graph } = model;
  const types = await forwardTypes(model);
  const index = new GraphIndex(graph);
  const functions = new Map<string, FunctionProto>();
  const variants = new Map<string, number>();
  const problems: string[] = [];
  const nodes: NodeProto[] = [];
  for (const original of graph.node) {
    const { opType = "" } = original;
    const moved = isDefaultDomain(original.domain) && MOVED.has(opType);
    if (!moved && (isDefaultDomain(original.domain) || (original.domain === MICROSOFT && BUILT_IN.has(opType)))) {
      nodes.push(original);
      continue;
    }
    const node = withFurtherOutputs(withFields(original, { domain: MICROSOFT }), graph.output);
    const body = original.domain === MICROSOFT || moved ? BODIES[opType] : undefined;
    try {
      if (!body) throw new NoBody("is an operator that fishy cannot write with standard ones");
      const made = await functionOf(node, (b, inputs) =>
        body({
          b,
          node,
          inputs,
          typeOf: (name) => types.get(name),
          producer: (name) => index.producer(name),
          constantOf: (name) => index.constant(name),
        }),
      );
      const key = JSON.stringify([opType, made.input, made.output, made.node, [...(made.attribute ?? [])]]);
      let known = functions.get(key);
      if (!known) {
        const variant = (variants.get(opType) ?? 0) + 1;
        variants.set(opType, variant);
        known = withFields(made, { name: variant === 1 ? opType : `${opType}_variant${variant}` });
        functions.set(key, known);
      }
      nodes.push(withFields(node, { opType: known.name ?? opType }));
    } catch (error) {
      if (!(error instanceof NoBody)) throw error;
      problems.push(`node '${node.name || node.output.find(Boolean)}' (${opType}) ${error.message}`);
    }
  }
  if (problems.length > 0) {
    throw new FishyError(
      `The training model cannot be polyfilled:\n${problems.map((problem) => `  - ${problem}`).join("\n")}`,
    );
  }
  graph.node = nodes;
  return withFields(model, {
    functions: [...model.functions, ...functions.values()],
    opsetImport: [
      { domain: "", version: PROGRAM_OPSET },
      { domain: MICROSOFT, version: 1 },
    ],
  });
}

/** What an in-place operator writes into its inputs becomes outputs. */
function withFurtherOutputs(node: NodeProto, outputs: ModelProto["graph"]["output"]): NodeProto {
  if (node.opType === "InPlaceAccumulatorV2") {
    const next = `${node.input[0]}.next`;
    outputs.push({ name: next });
    return withFields(node, { output: [node.output[0] as string, next] });
  }
  if (node.opType === "BatchNormInternal") {
    for (const name of node.output.slice(1, 3)) {
      if (name && !outputs.some((output) => output.name === name)) outputs.push({ name });
    }
  }
  return node;
}

async function functionOf(
  node: NodeProto,
  emit: (b: GraphBuilder, inputs: readonly string[]) => readonly string[] | Promise<readonly string[]>,
): Promise<FunctionProto> {
  const b = new GraphBuilder(emptyGraph("body"));
  const formal = node.input.map((name, i) => (name ? b.reserve(`input${i}`) : ""));
  const values = await emit(b, formal);
  const outputs = node.output.map((_, i) => b.reserve(`output${i}`));
  for (const [i, output] of outputs.entries()) {
    b.node("Identity", [values[i] as string], { outputs: [output] });
    b.output(output, { elemType: 1, shape: undefined });
  }
  prune(b.graph);
  const constants = b.graph.initializer.map(
    (tensor): NodeProto => ({
      opType: "Constant",
      name: tensor.name ?? "",
      input: [],
      output: [tensor.name ?? ""],
      attribute: attributesFrom({ value: tensor }),
    }),
  );
  return {
    name: node.opType ?? "",
    domain: MICROSOFT,
    input: node.input.map((_, i) => `input${i}`),
    output: outputs,
    attribute: node.attribute.map(({ name }) => name ?? ""),
    node: [...constants, ...b.graph.node],
    opsetImport: [{ domain: "", version: PROGRAM_OPSET }],
  };
}

/** Types of the forward pass's values: gradients are of the types of what they are gradients of. */
async function forwardTypes(model: ModelProto): Promise<TypeMap> {
  const { graph } = model;
  const types = new Map<string, NonNullable<ReturnType<typeof declaredType>>>();
  for (const info of [...graph.valueInfo, ...graph.input, ...graph.output]) {
    const type = declaredType(info);
    if (type) types.set(info.name ?? "", type);
  }
  const forward = toStandardOperators(sliceForward(model, true));
  for (const [name, type] of await inferTypes(forward)) {
    // Whichever knows the shape.
    if (type.shape !== undefined || !types.has(name)) types.set(name, type);
  }
  return types;
}
