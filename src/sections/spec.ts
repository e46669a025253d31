/** Which boundaries to sample at: the `--sections` option. */
import { FishyError, UsageError } from "../errors.js";
import type { Layer } from "./layers.js";

/**
 * - `per-layer`: every layer (Fishy).
 * - `output`: the output only: the true Fisher (FIM Shampoo).
 * - `classifier`: the dense layers at the end of the network; earlier layers inherit from the first of them.
 * - `every`: every K-th layer counted back from the output.
 * - `names`: layers by name, and the output.
 * - `none`: nothing is sampled.
 * - `plan`: the boundaries of a plan that was written down (`plan-file.ts`).
 */
export type SectionSpec =
  | { readonly kind: "none" | "per-layer" | "output" | "classifier" }
  | { readonly kind: "every"; readonly every: number }
  | { readonly kind: "names"; readonly names: readonly string[] }
  | { readonly kind: "plan"; readonly boundaries: readonly PlannedBoundary[] };

/** A boundary as a plan says it. */
export interface PlannedBoundary {
  /** The value that is sampled. */
  readonly at: string;
  /** Default the layer's name, or the value's. */
  readonly name?: string;
  /** Default that of the layer's activation. */
  readonly family?: { readonly name: string; readonly parameters: Readonly<Record<string, number>> };
  /** File and line, for errors. */
  readonly where: string;
}

/** Parses `per-layer|output|classifier|none|every:K|NAME,NAME…`. */
export function parseSections(text: string): SectionSpec {
  if (text === "none" || text === "per-layer" || text === "output" || text === "classifier") return { kind: text };
  const every = /^every:(.*)$/.exec(text);
  if (every) {
    const count = Number(every[1]);
    if (!Number.isInteger(count) || count < 1) {
      throw new UsageError(`--sections ${text}: K of every:K must be a whole number of at least 1.`);
    }
    return { kind: "every", every: count };
  }
  const names = text
    .split(",")
    .map((name) => name.trim())
    .filter(Boolean);
  if (names.length === 0) {
    throw new UsageError("--sections is empty: use per-layer, output, classifier, none, every:K or layer names.");
  }
  return { kind: "names", names };
}

/**
 * Chooses among the layers' boundaries.
 * @param layers in topological order, distinct pre-activations; the last entry is the output's boundary.
 * @throws FishyError for a name that no layer has, listing the layers.
 */
export function chooseBoundaries(spec: Exclude<SectionSpec, { kind: "plan" }>, layers: readonly Layer[]): Layer[] {
  const output = layers[layers.length - 1];
  if (!output || spec.kind === "none") return [];
  switch (spec.kind) {
    case "per-layer":
      return [...layers];
    case "output":
      return [output];
    case "classifier":
      return classifierOf(layers);
    case "every": {
      const counted = layers.filter((layer) => !layer.isScaling || layer === output);
      return counted.filter((_, i) => (counted.length - 1 - i) % spec.every === 0);
    }
    case "names":
      return layers.filter((layer) => layer === output || spec.names.some((name) => matches(layer, name)));
  }
}

/** @throws FishyError for a name that no layer has. */
export function checkNames(spec: SectionSpec, layers: readonly Layer[]): void {
  if (spec.kind !== "names") return;
  const unknown = spec.names.filter((name) => !layers.some((layer) => matches(layer, name)));
  if (unknown.length === 0) return;
  throw new FishyError(
    `No layer is named ${unknown.map((name) => `'${name}'`).join(", ")}. The layers are: ${layers.map((layer) => layer.name).join(", ")}. ` +
      "A boundary is named by its layer, its pre-activation or its activation (see fishy inspect).",
  );
}

function matches(layer: Layer, name: string): boolean {
  return layer.name === name || layer.preActivation === name || layer.activation === name || layer.node.name === name;
}

/** The run of dense layers (Gemm, MatMul) that ends at the output. */
function classifierOf(all: readonly Layer[]): Layer[] {
  const layers = all.filter((layer, i) => !layer.isScaling || i === all.length - 1);
  let first = layers.length - 1;
  while (first > 0 && isDense(layers[first - 1] as Layer)) first--;
  return layers.slice(first);
}

function isDense(layer: Layer): boolean {
  return layer.node.opType === "Gemm" || layer.node.opType === "MatMul";
}
