/** A description of a model as plain data: what `fishy inspect` shows. */
import { moduleNames } from "../onnx/module-names.js";
import type { ModelProto } from "../onnx/proto.js";
import { dimsOf, elementCount } from "../onnx/tensor.js";
import { opsetOf } from "../onnx/versions.js";
import { boundaryLayers } from "../sections/plan.js";
import { describe } from "./loss-target.js";
import { type PreparedModel, type PrepareOptions, prepare } from "./prepare.js";

/** What is in a model, as plain data. */
export interface ModelDescription {
  readonly opset: number;
  readonly producer: string;
  readonly nodes: number;
  readonly inputs: readonly { readonly name: string; readonly type: string }[];
  readonly outputs: readonly { readonly name: string; readonly type: string }[];
  /** The loss that training would use: in the graph, or chosen; null when one has to be chosen. */
  readonly loss: { readonly name: string; readonly output: string } | null;
  readonly parameters: readonly {
    readonly name: string;
    readonly dims: readonly number[];
    readonly elements: number;
    /** The first layer that uses it. */
    readonly layer: string | null;
    /** The module it belongs to, when its name is the exporter's and the metadata tells. */
    readonly module: string | null;
  }[];
  readonly frozen: readonly string[];
  /** Running statistics. */
  readonly buffers: readonly string[];
  readonly layers: readonly LayerDescription[];
  readonly withoutGradient: readonly {
    readonly opType: string;
    readonly name: string;
    /** What is in the way, and the remedy, where more is known than that the operator has no gradient. */
    readonly reason: string | null;
  }[];
}

/** A layer: its operator, parameters, activation and possible boundary. */
export interface LayerDescription {
  readonly name: string;
  readonly operator: string;
  readonly parameters: readonly string[];
  /** Where it can be sampled, the activation that follows, and the family it implies. */
  readonly boundary: string;
  readonly activation: string | null;
  readonly family: string;
  readonly note: string | null;
}

/** Describes a source model. @throws FishyError when it cannot be loaded or has nothing to train. */
export async function inspectModel(source: ModelProto, options: PrepareOptions = {}): Promise<ModelDescription> {
  const prepared = await prepare(source, { ...options, lossOptional: true });
  const { types, parameters, loss } = prepared;
  const modules = moduleNames(source.graph);
  const layerOf = new Map<string, string>();
  for (const layer of prepared.layers) {
    for (const name of layer.parameters) if (!layerOf.has(name)) layerOf.set(name, layer.name);
  }
  const initializers = new Set(source.graph.initializer.map((tensor) => tensor.name ?? ""));
  const list = (names: readonly string[]) => names.map((name) => ({ name, type: describe(types.get(name)) }));
  return {
    opset: opsetOf(source),
    producer: [source.producerName, source.producerVersion].filter(Boolean).join(" "),
    nodes: source.graph.node.length,
    inputs: list(prepared.inputs),
    outputs: list(prepared.outputs),
    loss: loss ? { name: loss.name, output: loss.output } : null,
    parameters: parameters.trainable.map((tensor) => ({
      name: tensor.name ?? "",
      dims: dimsOf(tensor),
      elements: elementCount(dimsOf(tensor)),
      layer: layerOf.get(tensor.name ?? "") ?? null,
      module: modules.get(tensor.name ?? "") ?? null,
    })),
    frozen: parameters.frozen,
    // Lowering gives some a shape by a node of its own, whose output is no tensor of the file.
    buffers: parameters.buffers.filter((name) => initializers.has(name)),
    layers: describeLayers(prepared),
    withoutGradient: prepared.withoutGradient.map((node) => ({
      opType: node.opType ?? "",
      name: node.name || (node.output[0] ?? ""),
      reason: prepared.refusals.get(node) ?? null,
    })),
  };
}

function describeLayers({ layers, output }: PreparedModel): LayerDescription[] {
  const shown = output ? boundaryLayers(layers, output) : layers;
  return shown.map((layer) => ({
    name: layer.name,
    operator: layer.node.opType ?? "",
    parameters: layer.parameters,
    boundary: layer.preActivation,
    activation: layer.activationType ?? null,
    family: familyLabel(layer.family),
    note: layer.note ?? null,
  }));
}

/** Such as `leaky_relu(alpha=0.1)`. */
export function familyLabel(family: { name: string; parameters: Readonly<Record<string, number>> }): string {
  const parameters = Object.entries(family.parameters).map(([key, value]) => `${key}=${Number(value.toPrecision(6))}`);
  return parameters.length > 0 ? `${family.name}(${parameters.join(", ")})` : family.name;
}
