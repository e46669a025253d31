/**
 * Finding the layers of a model: each dense or convolutional operator with a parameter, its pre-activation and activation,
 * and each normalisation or elementwise scale with a parameter that does not stand between the two.
 */
import type { Family } from "../families/family.js";
import { familyByName, familyOfActivation } from "../families/registry.js";
import type { GraphIndex } from "../onnx/graph.js";
import type { NodeProto } from "../onnx/proto.js";

export interface Layer {
  /** The name that `--sections` takes: the weight's name without `.weight`, else the node's. */
  readonly name: string;
  /** The linear operator, the normalisation, or the product with a scale. */
  readonly node: NodeProto;
  /** Whether it is a normalisation or scale by itself: counted neither by `every:K` nor as one of a classifier's layers. */
  readonly isScaling?: boolean;
  /** Parameters that the operator and what follows up to the pre-activation use. */
  readonly parameters: readonly string[];
  /** The value that can be sampled at. */
  readonly preActivation: string;
  /** The activation's output, where the pre-activation goes into an activation of a family. */
  readonly activation?: string;
  /** The activation's operator as the model has it, family or not. */
  readonly activationType?: string;
  readonly family: Family;
  /** Why the linear family stands in for an activation that has none. */
  readonly note?: string;
}

/** Operators that begin a layer when a parameter takes part. */
const LINEAR: ReadonlySet<string> = new Set(["Gemm", "MatMul", "Conv", "ConvTranspose", "Einsum"]);
/** Operators whose output is a parameter in another form when their inputs are parameters and constants. */
const NORMALISATIONS: ReadonlySet<string> = new Set([
  "BatchNormalization",
  "LayerNormalization",
  "InstanceNormalization",
  "GroupNormalization",
  "RMSNormalization",
]);
/** Operators that only move values, between a linear operator and its activation. */
const MOVEMENT: ReadonlySet<string> = new Set(["Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity"]);

export interface LayerOptions {
  readonly index: GraphIndex;
  /** Nodes in topological order. */
  readonly order: readonly NodeProto[];
  readonly parameters: ReadonlySet<string>;
  /** Normalisations that were lowered to primitives: input → the node as it was. */
  readonly normalised?: ReadonlyMap<string, NodeProto>;
  /** Modules of weights under generated names. */
  readonly modules?: ReadonlyMap<string, string>;
  /** The output layer's pre-activation and the family that the loss implies. */
  readonly output?: { readonly preActivation: string; readonly family: Family };
}

/** The layers of a model in topological order. */
export function findLayers(options: LayerOptions): Layer[] {
  const origins = parameterOrigins(options);
  const layers: Layer[] = [];
  /** Outputs of the normalisations between a layer and its pre-activation. */
  const within = new Set<string>();
  const find = (node: NodeProto, isScaling: boolean) => {
    const own = node.input.flatMap((name) => [...(origins.get(name) ?? [])]);
    const takesData = node.input.some((name) => name && isData(options, origins, name));
    if (own.length === 0 || !takesData) return;
    const layer = layerAt(node, own, options, origins, within);
    layers.push(isScaling ? { ...layer, isScaling } : layer);
  };
  const lowered = new Set([...(options.normalised?.values() ?? [])].map(({ output }) => output[0] as string));
  for (const node of options.order) {
    const opType = node.opType ?? "";
    if (!node.domain && LINEAR.has(opType)) find(node, false);
    if (!node.domain && NORMALISATIONS.has(opType) && !within.has(node.output[0] as string)) find(node, true);
    // The scale of a normalisation that the model has as primitives.
    if (!node.domain && opType === "Mul" && !isPartOf(lowered, node, options)) find(node, true);
    for (const output of node.output) {
      const normalisation = options.normalised?.get(output);
      if (normalisation && !within.has(normalisation.output[0] as string)) find(normalisation, true);
    }
  }
  return layers;
}

/** Whether a product, or the sum after it, is the last node of a normalisation that was lowered. */
function isPartOf(lowered: ReadonlySet<string>, { output }: NodeProto, { index }: LayerOptions): boolean {
  const [product] = output as [string];
  if (lowered.has(product)) return true;
  return index.uses(product).some(({ node }) => node?.opType === "Add" && lowered.has(node.output[0] as string));
}

type Origins = ReadonlyMap<string, ReadonlySet<string>>;

/** For every value that is made of parameters and constants alone: the parameters in it. */
function parameterOrigins({ order, index, parameters }: LayerOptions): Origins {
  const origins = new Map<string, ReadonlySet<string>>();
  for (const name of parameters) origins.set(name, new Set([name]));
  for (const node of order) {
    const inputs = node.input.filter(Boolean);
    if (!inputs.some((name) => origins.has(name))) continue;
    if (!inputs.every((name) => origins.has(name) || isConstant(index, name))) continue;
    const union = new Set(inputs.flatMap((name) => [...(origins.get(name) ?? [])]));
    for (const output of node.output) if (output) origins.set(output, union);
  }
  return origins;
}

function isConstant(index: GraphIndex, name: string): boolean {
  return index.initializers.has(name) || index.constant(name) !== undefined;
}

function isData({ index }: LayerOptions, origins: Origins, name: string): boolean {
  return !origins.has(name) && !isConstant(index, name);
}

function layerAt(
  node: NodeProto,
  own: readonly string[],
  options: LayerOptions,
  origins: Origins,
  within: Set<string>,
): Layer {
  const { index } = options;
  const parameters = [...own];
  const passed: string[] = [];
  const reached = <T>(layer: T): T => {
    for (const output of passed) within.add(output);
    return layer;
  };
  let value = node.output[0] as string;
  // The last value before a residual sum, a normalisation or a movement: the boundary when no activation follows them.
  let fallback = { value, parameters: parameters.length };
  let firm = true;
  const base = { name: layerName(node, own, options.modules), node };
  for (;;) {
    if (value === options.output?.preActivation) {
      return reached({ ...base, parameters, preActivation: value, family: options.output.family });
    }
    const normalisation = options.normalised?.get(value);
    if (normalisation) {
      parameters.push(...normalisation.input.slice(1, 3).flatMap((name) => [...(origins.get(name) ?? [])]));
      value = normalisation.output[0] as string;
      passed.push(value);
      firm = false;
      continue;
    }
    const uses = index.uses(value);
    const next = uses[0]?.node;
    if (!next || uses.length !== 1 || uses[0]?.index === -1 || index.outputs.has(value)) break;
    const family = familyOfActivation(next, (name) => index.constant(name));
    if (family && "refused" in family) {
      return reached(
        linear({ ...base, parameters, preActivation: value, activationType: next.opType ?? "" }, family.refused),
      );
    }
    if (family && next.opType !== "Identity") {
      return reached({
        ...base,
        parameters: [...parameters, ...next.input.slice(1).flatMap((name) => [...(origins.get(name) ?? [])])],
        preActivation: value,
        activation: next.output[0] as string,
        activationType: next.opType ?? "",
        family,
      });
    }
    const step = passThrough(next, value, options, origins);
    if (!step) break;
    parameters.push(...step.parameters);
    value = next.output[0] as string;
    if (NORMALISATIONS.has(next.opType ?? "")) passed.push(value);
    firm = firm && step.affine;
    if (firm) fallback = { value, parameters: parameters.length };
  }
  return linear({ ...base, parameters: parameters.slice(0, fallback.parameters), preActivation: fallback.value });
}

function linear(layer: Omit<Layer, "family">, note?: string): Layer {
  return { ...layer, family: familyByName("gaussian"), ...(note && { note }) };
}

/** Whether the walk from a linear operator to its activation goes through `node`, and which parameters it picks up. */
function passThrough(
  node: NodeProto,
  value: string,
  options: LayerOptions,
  origins: Origins,
): { affine: boolean; parameters: string[] } | undefined {
  const opType = node.opType ?? "";
  const others = node.input.filter((name) => name && name !== value);
  const parameters = others.flatMap((name) => [...(origins.get(name) ?? [])]);
  if (MOVEMENT.has(opType) && node.input[0] === value) return { affine: false, parameters };
  if (NORMALISATIONS.has(opType) && node.input[0] === value) return { affine: false, parameters };
  if (opType === "Add" || opType === "Sub") {
    const isBias = others.length === 1 && others.every((name) => !isData(options, origins, name));
    return { affine: isBias, parameters };
  }
  return undefined;
}

/** `encoder.0` for a layer whose weight is `encoder.0.weight`, or whose weight's module is known to be that. */
function layerName(node: NodeProto, own: readonly string[], modules: ReadonlyMap<string, string> | undefined): string {
  const weight = own[0] as string;
  const module = modules?.get(weight);
  return module || weight.replace(/[./](weight|kernel|W)$/, "") || node.name || (node.output[0] as string);
}
