/** The boundaries of a plan that was written down: found in the graph, checked, in the order of the network. */
import { FishyError } from "../errors.js";
import { familyByName } from "../families/registry.js";
import { topologicalOrder } from "../onnx/graph.js";
import { DataType, type GraphProto, type NodeProto } from "../onnx/proto.js";
import { dataTypeName } from "../onnx/tensor.js";
import type { TypeMap } from "../onnx/types.js";
import type { Layer } from "./layers.js";
import type { PlannedBoundary } from "./spec.js";

export interface PlannedOptions {
  readonly graph: GraphProto;
  readonly types: TypeMap;
  /** The layers with distinct boundaries, the output's last. */
  readonly candidates: readonly Layer[];
}

/**
 * Finds the boundaries of a plan.
 * @throws FishyError, with the plan's line, for a value that the graph does not have or that cannot be sampled, and
 * when the output's boundary is missing.
 */
export function plannedBoundaries(planned: readonly PlannedBoundary[], options: PlannedOptions): Layer[] {
  const { candidates } = options;
  const places = placesOf(options);
  const chosen = planned.map((boundary) => ({ layer: layerAt(boundary, options), where: boundary.where }));
  const output = candidates.at(-1);
  if (output && !chosen.some(({ layer }) => layer.preActivation === output.preActivation)) {
    throw new FishyError(
      `${planned[0]?.where.replace(/:\d+$/, "") ?? "The plan"}: the boundary of the output, at '${output.preActivation}', must stay: nothing else stands behind the last layer.`,
    );
  }
  const twice = chosen.find(({ layer }, i) =>
    chosen.slice(0, i).some((other) => other.layer.preActivation === layer.preActivation),
  );
  if (twice) throw new FishyError(`${twice.where}: the boundary at '${twice.layer.preActivation}' is there already.`);
  return chosen
    .sort((a, b) => (places(a.layer.preActivation) ?? 0) - (places(b.layer.preActivation) ?? 0))
    .map(({ layer }) => layer);
}

function layerAt(boundary: PlannedBoundary, options: PlannedOptions): Layer {
  const { candidates } = options;
  const { at, where, name, family } = boundary;
  const own = candidates.find(({ preActivation }) => preActivation === at);
  if (!own) return valueAt(boundary, options);
  const named = name === undefined ? own : { ...own, name };
  if (family === undefined || isSame(own.family, family)) return named;
  if (own === candidates.at(-1)) {
    throw new FishyError(
      `${where}: the family of the output follows from the loss: ${own.family.name}, not ${family.name}. Choose another --loss.`,
    );
  }
  // ŷ is then another than the activation that the graph computes.
  const { activation: _activation, note: _note, ...rest } = named;
  return { ...rest, family: familyByName(family.name, family.parameters) };
}

function isSame(own: Layer["family"], written: NonNullable<PlannedBoundary["family"]>): boolean {
  const entries = Object.entries(own.parameters);
  return (
    own.name === written.name &&
    entries.length === Object.keys(written.parameters).length &&
    entries.every(([key, value]) => written.parameters[key] === value)
  );
}

/** A boundary at a value that is no layer's pre-activation, such as a residual sum. */
function valueAt({ at, where, name, family }: PlannedBoundary, { graph, types, candidates }: PlannedOptions): Layer {
  const node = graph.node.find(({ output }) => output.includes(at));
  if (!node) {
    throw new FishyError(
      `${where}: the graph has no value '${at}'. The layers' boundaries are at: ${candidates.map(({ preActivation }) => preActivation).join(", ")}.`,
    );
  }
  const type = types.get(at);
  if (type?.elemType !== DataType.FLOAT || !type.shape?.length) {
    const found = type ? `${dataTypeName(type.elemType)} of rank ${type.shape?.length ?? "unknown"}` : "no tensor";
    throw new FishyError(`${where}: '${at}' is ${found}; a boundary lies at a float tensor with a batch axis.`);
  }
  if (family === undefined) {
    throw new FishyError(
      `${where}: '${at}' is the pre-activation of no layer, so that its family must be given (gaussian, say).`,
    );
  }
  return {
    name: name ?? at,
    node,
    parameters: [],
    preActivation: at,
    family: familyByName(family.name, family.parameters),
  };
}

/** Where a value stands: the layers in their own order, other values between them by the order of the graph. */
function placesOf({ graph, candidates }: PlannedOptions): (value: string) => number | undefined {
  const order = new Map<string, number>();
  topologicalOrder(graph).forEach((node: NodeProto, i) => {
    for (const output of node.output) order.set(output, i);
  });
  const places = new Map(candidates.map(({ preActivation }, i) => [preActivation, i]));
  return (value) => {
    const place = places.get(value);
    if (place !== undefined) return place;
    const own = order.get(value) ?? 0;
    const before = candidates.filter(({ preActivation }) => (order.get(preActivation) ?? 0) < own).length;
    return before - 0.5 + own / (2 * order.size + 2);
  };
}
