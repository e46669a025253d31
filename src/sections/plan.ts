/** Cutting the graph: boundaries, the sections between them, and which section each parameter belongs to. */
import { planReverse } from "../autodiff/reverse.js";
import { FishyError } from "../errors.js";
import type { Family } from "../families/family.js";
import type { GraphProto } from "../onnx/proto.js";
import type { TypeMap } from "../onnx/types.js";
import type { Layer } from "./layers.js";
import { plannedBoundaries } from "./planned.js";
import { checkNames, chooseBoundaries, type PlannedBoundary, type SectionSpec } from "./spec.js";

/** A place where the network is sampled. */
export interface Boundary {
  readonly name: string;
  readonly preActivation: string;
  readonly activation?: string;
  readonly family: Family;
  readonly note?: string;
}

/** The layers between boundaries, whose parameters get their sampled gradients from one of them. */
export interface Section {
  /** The distinct names of its boundaries, joined. */
  readonly name: string;
  /** Indices into the plan's boundaries. */
  readonly boundaries: readonly number[];
  readonly parameters: readonly string[];
}

/** Where a network is sampled, and the parts that lie between. */
export interface SectionPlan {
  readonly boundaries: readonly Boundary[];
  readonly sections: readonly Section[];
}

export interface PlanOptions {
  readonly graph: GraphProto;
  readonly types: TypeMap;
  readonly parameters: readonly string[];
  readonly layers: readonly Layer[];
  readonly output: { readonly preActivation: string; readonly family: Family };
  readonly spec: SectionSpec;
}

/** Layers with distinct boundaries, the output's last; layers that share a pre-activation are one boundary. */
export function boundaryLayers(layers: readonly Layer[], output: PlanOptions["output"]): Layer[] {
  const distinct = new Map<string, Layer>();
  for (const layer of layers) {
    if (layer.preActivation === output.preActivation) continue;
    const known = distinct.get(layer.preActivation);
    // The boundary is named after the last layer that runs into it.
    if (known) distinct.delete(layer.preActivation);
    distinct.set(
      layer.preActivation,
      known ? { ...layer, parameters: [...known.parameters, ...layer.parameters] } : layer,
    );
  }
  const last = layers.filter((layer) => layer.preActivation === output.preActivation).pop();
  const named = last ?? {
    name: "output",
    node: { input: [], output: [output.preActivation], attribute: [] },
    parameters: [],
    ...output,
  };
  return [...distinct.values(), named];
}

/**
 * Plans the sections: chooses the boundaries and finds, for every parameter, the boundaries that it reaches without
 * passing another one. Parameters and boundaries that hang together form a section, so that every parameter belongs to
 * exactly one.
 * @throws FishyError for an unknown boundary name, and for a plan that does not fit the graph.
 */
export function cutIntoSections(options: PlanOptions): SectionPlan {
  const candidates = boundaryLayers(options.layers, options.output);
  checkNames(options.spec, candidates);
  const { spec } = options;
  const chosen =
    spec.kind === "plan"
      ? plannedBoundaries(spec.boundaries, { ...options, candidates })
      : chooseBoundaries(spec, candidates);
  const boundaries = chosen.map(
    ({ name, preActivation, activation, family, note }): Boundary => ({
      name,
      preActivation,
      family,
      ...(activation && { activation }),
      ...(note && { note }),
    }),
  );
  if (boundaries.length === 0) return { boundaries, sections: [] };
  const sections = cutSections(options, boundaries);
  if (spec.kind === "plan") checkPlanned(spec.boundaries, boundaries, sections);
  return { boundaries, sections };
}

/** A boundary that was put where no parameter lies before it is a mistake. */
function checkPlanned(
  planned: readonly PlannedBoundary[],
  boundaries: readonly Boundary[],
  sections: readonly Section[],
): void {
  const empty = sections.find(({ parameters }) => parameters.length === 0);
  const at = empty && boundaries[empty.boundaries[0] as number]?.preActivation;
  if (at === undefined) return;
  const where = planned.find((boundary) => boundary.at === at)?.where;
  throw new FishyError(
    `${where}: no parameter that trains reaches '${at}' without passing another boundary. Take it out.`,
  );
}

function cutSections(options: PlanOptions, boundaries: readonly Boundary[]): Section[] {
  const { graph, types, parameters } = options;
  const indexOf = new Map(boundaries.map((boundary, i) => [boundary.preActivation, i]));
  const plan = planReverse({ forward: graph, types, wrt: parameters, seeds: indexOf, cut: new Set(indexOf.keys()) });
  const groups = new DisjointSets(boundaries.length);
  // Backward over the local graph: a value belongs to the group of the boundaries that it reaches.
  const groupOf = new Map<string, number>();
  const join = (name: string, group: number) => {
    const known = groupOf.get(name);
    if (known === undefined) groupOf.set(name, group);
    else groups.union(known, group);
  };
  for (const [name, i] of indexOf) groupOf.set(name, i);
  for (const node of plan.walk) {
    const reached = node.output.map((output) => groupOf.get(output)).filter((group) => group !== undefined);
    const [first, ...rest] = reached;
    if (first === undefined) continue;
    for (const group of rest) groups.union(first, group);
    for (const name of node.input) if (plan.active.has(name) && !indexOf.has(name)) join(name, first);
  }
  const sections = new Map<number, { boundaries: number[]; parameters: string[] }>();
  for (let i = 0; i < boundaries.length; i++) {
    const root = groups.find(i);
    const section = sections.get(root) ?? { boundaries: [], parameters: [] };
    section.boundaries.push(i);
    sections.set(root, section);
  }
  for (const parameter of parameters) {
    const group = groupOf.get(parameter);
    if (group === undefined) {
      throw new FishyError(
        `Parameter '${parameter}' reaches no boundary: it lies behind the last one. Add the layer after it to --sections.`,
      );
    }
    sections.get(groups.find(group))?.parameters.push(parameter);
  }
  return [...sections.values()].map((section) => ({
    // A layer that is unrolled over time has a boundary at every step.
    name: [...new Set(section.boundaries.map((i) => (boundaries[i] as Boundary).name))].join("+"),
    ...section,
  }));
}

class DisjointSets {
  private readonly parents: number[];
  constructor(size: number) {
    this.parents = Array.from({ length: size }, (_, i) => i);
  }
  find(i: number): number {
    let root = i;
    while (this.parents[root] !== root) root = this.parents[root] as number;
    this.parents[i] = root;
    return root;
  }
  union(a: number, b: number): void {
    const [low, high] = [this.find(a), this.find(b)].sort((x, y) => x - y) as [number, number];
    this.parents[high] = low;
  }
}
