/** Finding the layers of a model: each dense or convolutional operator with a parameter, its pre-activation and activation. */
import type { Family } from "../families/family.js";
import { familyByName, familyOfActivation } from "../families/registry.js";
import type { GraphIndex } from "../onnx/graph.js";
import type { NodeProto } from "../onnx/proto.js";

export interface Layer {
  /** The name that `--sections` takes: the weight's name without `.weight`, else the node's. */
  readonly name: string;
  /** The linear operator. */
  readonly node: NodeProto;
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
  for (const node of options.order) {
    if (!LINEAR.has(node.opType ?? "") || node.domain) continue;
    const own = node.input.flatMap((name) => [...(origins.get(name) ?? [])]);
    const takesData = node.input.some((name) => name && isData(options, origins, name));
    if (own.length === 0 || !takesData) continue;
    layers.push(layerAt(node, own, options, origins));
  }
  return layers;
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

function layerAt(node: NodeProto, own: readonly string[], options: LayerOptions, origins: Origins): Layer {
  const { index } = options;
  const parameters = [...own];
  let value = node.output[0] as string;
  // The last value before a residual sum, a normalisation or a movement: the boundary when no activation follows them.
  let fallback = value;
  let firm = true;
  const base = { name: layerName(node, own, options.modules), node };
  for (;;) {
    if (value === options.output?.preActivation) {
      return { ...base, parameters, preActivation: value, family: options.output.family };
    }
    const normalisation = options.normalised?.get(value);
    if (normalisation) {
      parameters.push(...normalisation.input.slice(1, 3).flatMap((name) => [...(origins.get(name) ?? [])]));
      value = normalisation.output[0] as string;
      firm = false;
      continue;
    }
    const uses = index.uses(value);
    const next = uses[0]?.node;
    if (!next || uses.length !== 1 || uses[0]?.index === -1 || index.outputs.has(value)) break;
    const family = familyOfActivation(next, (name) => index.constant(name));
    if (family && "refused" in family) {
      return linear({ ...base, parameters, preActivation: value, activationType: next.opType ?? "" }, family.refused);
    }
    if (family && next.opType !== "Identity") {
      return {
        ...base,
        parameters: [...parameters, ...next.input.slice(1).flatMap((name) => [...(origins.get(name) ?? [])])],
        preActivation: value,
        activation: next.output[0] as string,
        activationType: next.opType ?? "",
        family,
      };
    }
    const step = passThrough(next, value, options, origins);
    if (!step) break;
    parameters.push(...step.parameters);
    value = next.output[0] as string;
    firm = firm && step.affine;
    if (firm) fallback = value;
  }
  return linear({ ...base, parameters, preActivation: fallback });
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
