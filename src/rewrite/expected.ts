/**
 * `draw: expected`: what the statistics take without a sample. For a section of one layer the expected Gram matrices
 * have a closed form, of which the program gives the ingredients; for longer sections it gives a probe of signs,
 * y − E[y] = ±sd(y), whose Gram matrices have the right expectation. The mean that the paper's score keeps is a term of
 * its own: the gradient of E[y] − ŷ, without noise.
 */
import { differentiate } from "../autodiff/reverse.js";
import { FishyError } from "../errors.js";
import { counterRandom } from "../families/random.js";
import { floatOf, intOf, intsOf } from "../onnx/attributes.js";
import type { GraphBuilder } from "../onnx/builder.js";
import { GraphIndex } from "../onnx/graph.js";
import type { NodeProto } from "../onnx/proto.js";
import { dimsOf } from "../onnx/tensor.js";
import type { TypeMap } from "../onnx/types.js";
import type { Layer } from "../sections/layers.js";
import type { Boundary } from "../sections/plan.js";
import type { StatisticsTerm } from "../sections/statistics-term.js";
import { patchesOf } from "./patches.js";
import { type LocalPass, preActivationOf } from "./sampling.js";

/** Families whose mean is ŷ, so that both scores are the same. */
const UNBIASED: ReadonlySet<string> = new Set(["gaussian", "bernoulli", "softmax", "tanh_two_point"]);

/** Emits the terms of every parameter. */
export function emitExpected(input: LocalPass): Map<string, StatisticsTerm[]> {
  const { b, forward, types, plan, wrt, score, batchSize } = input;
  const index = new GraphIndex(forward);
  const cut = new Set(plan.boundaries.map((boundary) => boundary.preActivation));
  const terms = new Map<string, StatisticsTerm[]>(wrt.map((name) => [name, []]));
  const weight = b.op("Reciprocal", [b.mul(batchSize, batchSize)]);
  const probes = new Map<string, string>();
  const means = new Map<string, string>();
  const local = (seeds: ReadonlyMap<string, string>) =>
    seeds.size === 0 ? new Map<string, string>() : differentiate({ builder: b, forward, types, wrt, seeds, cut });

  for (const section of plan.sections) {
    const boundaries = section.boundaries.map((i) => plan.boundaries[i] as Boundary);
    const [only] = boundaries;
    const closed = boundaries.length === 1 && only ? closedForm(input, index, only, section.parameters) : undefined;
    if (closed) {
      b.scope(`${only?.name}/expected`, () => {
        const moments = closed(weight);
        for (const [name, term] of moments) terms.get(name)?.push(term);
      });
    }
    for (const boundary of boundaries) {
      const { preActivation: a, family } = boundary;
      const given = preActivationOf(input, boundary);
      b.scope(`${boundary.name}/expected`, () => {
        if (!closed) {
          const random = counterRandom(input.seed, plan.boundaries.indexOf(boundary));
          const residual = family.residual(b, { ...given, random, score: "centred", draw: "two-point" });
          probes.set(a, b.div(residual, batchSize));
        }
        if (score === "paper" && !UNBIASED.has(family.name)) {
          const { mean } = family.moments(b, given);
          const y = given.activation ?? familyMean(boundary);
          means.set(a, b.div(b.sub(mean, y), batchSize));
        }
      });
    }
  }
  input.cotangents.push(...probes.values(), ...means.values());
  for (const gradients of [local(probes), local(means)]) {
    for (const [name, value] of gradients) terms.get(name)?.push({ kind: "gradient", value });
  }
  return terms;
}

function familyMean(boundary: Boundary): string {
  throw new FishyError(
    `The boundary '${boundary.name}' has no activation in the graph, and its family ${boundary.family.name} a mean of its own. Use --score centred.`,
  );
}

type ClosedForm = (weight: string) => Map<string, StatisticsTerm>;

/** The closed form of a section that is one dense or convolutional layer with its bias, or undefined. */
function closedForm(
  input: LocalPass,
  index: GraphIndex,
  boundary: Boundary,
  parameters: readonly string[],
): ClosedForm | undefined {
  const { b, types, layers } = input;
  const layer = layers.filter((candidate) => candidate.preActivation === boundary.preActivation);
  const [only] = layer;
  if (layer.length !== 1 || !only) return undefined;
  const rows = layerRows(index, types, only, b);
  const bias = rows && biasOf(index, only, rows.weight);
  if (!rows || bias === undefined || parameters.length !== (bias ? 2 : 1)) return undefined;
  if (![rows.weight, bias].every((name) => !name || parameters.includes(name))) return undefined;
  const type = types.get(boundary.preActivation);
  const rank = type?.shape?.length;
  const channel = rows.channel === "last" ? (rank ?? 0) - 1 : 1;
  const categorical = boundary.family.name === "softmax";
  if (!type || rank === undefined || (categorical && boundary.family.parameters.axis !== channel)) return undefined;
  return (weight) => {
    const moments = boundary.family.moments(b, preActivationOf(input, boundary));
    const values = categorical ? moments.mean : moments.variance;
    const perm = Array.from({ length: rank }, (_, i) => i).filter((axis) => axis !== channel);
    const moved = channel === rank - 1 ? values : b.transpose(values, [...perm, channel]);
    const output = b.reshape(moved, [-1, rows.outputs]);
    const common = { kind: "layer", output, covariance: categorical ? "categorical" : "diagonal", weight } as const;
    const terms = new Map<string, StatisticsTerm>([
      [rows.weight, { ...common, input: rows.input(), outputAxis: rows.outputAxis }],
    ]);
    if (bias) {
      const count = b.op("Shape", [output], { start: 0, end: 1 });
      const ones = b.expand(b.f32([1], [1, 1]), b.concat([count, b.i64([1])], 0));
      terms.set(bias, { ...common, input: ones, outputAxis: "first" });
    }
    return terms;
  };
}

interface LayerRows {
  readonly weight: string;
  readonly outputs: number;
  readonly outputAxis: "first" | "last";
  /** Where the outputs lie in the pre-activation. */
  readonly channel: "last" | "second";
  /** Emits the inputs as [rows, inputs]. */
  input(): string;
}

function layerRows(index: GraphIndex, types: TypeMap, { node }: Layer, b: GraphBuilder): LayerRows | undefined {
  const [x, w] = node.input as [string, string];
  if (node.opType === "Gemm") {
    if (intOf(node, "transA", 0) !== 0 || floatOf(node, "alpha", 1) !== 1) return undefined;
    const weight = index.initializers.get(w);
    if (!weight) return undefined;
    const first = intOf(node, "transB", 0) === 1;
    const outputs = dimsOf(weight)[first ? 0 : 1] as number;
    return { weight: w, outputs, outputAxis: first ? "first" : "last", channel: "last", input: () => x };
  }
  if (node.opType === "MatMul") {
    const matrix = matrixOf(index, w);
    if (!matrix || types.get(x)?.shape === undefined) return undefined;
    const [inputs, outputs] = matrix.transposed ? [matrix.dims[1], matrix.dims[0]] : matrix.dims;
    return {
      weight: matrix.name,
      outputs: outputs as number,
      outputAxis: matrix.transposed ? "first" : "last",
      channel: "last",
      input: () => (types.get(x)?.shape?.length === 2 ? x : b.reshape(x, [-1, inputs as number])),
    };
  }
  if (node.opType !== "Conv" || intOf(node, "group", 1) !== 1) return undefined;
  const weight = index.initializers.get(w);
  const patches = weight && patchesOf(b, node, types, dimsOf(weight));
  if (!patches) return undefined;
  return { weight: w, outputs: dimsOf(weight)[0] as number, outputAxis: "first", channel: "second", input: patches };
}

/** A weight [in, out], or [out, in] behind a Transpose. */
function matrixOf(index: GraphIndex, name: string): { name: string; dims: number[]; transposed: boolean } | undefined {
  const direct = index.initializers.get(name);
  if (direct) return direct.dims.length === 2 ? { name, dims: dimsOf(direct), transposed: false } : undefined;
  const node = index.producer(name);
  const source = node?.opType === "Transpose" ? index.initializers.get(node.input[0] as string) : undefined;
  if (source?.dims.length !== 2) return undefined;
  const perm = intsOf(node as NodeProto, "perm") ?? [1, 0];
  return { name: node?.input[0] as string, dims: dimsOf(source), transposed: perm[0] === 1 };
}

/** The layer's bias: its name, "" when there is none, undefined when something else stands before the pre-activation. */
function biasOf(index: GraphIndex, layer: Layer, weight: string): string | undefined {
  const { node, preActivation } = layer;
  const own = node.opType === "MatMul" ? "" : (node.input[2] ?? "");
  if (own && (floatOf(node, "beta", 1) !== 1 || !index.initializers.has(own))) return undefined;
  if (node.output[0] === preActivation) return vectorOrNone(index, own);
  const sum = index.producer(preActivation);
  if (own || sum?.opType !== "Add" || !sum.input.includes(node.output[0] as string)) return undefined;
  const other = sum.input.find((name) => name !== node.output[0]) as string;
  return other !== weight && index.initializers.has(other) ? vectorOrNone(index, other) : undefined;
}

function vectorOrNone(index: GraphIndex, name: string): string | undefined {
  if (!name) return "";
  return index.initializers.get(name)?.dims.length === 1 ? name : undefined;
}
