/**
 * Source model + plan → training program: the forward pass, the loss, the gradient of every parameter, and the local
 * sampling and sampled backward pass of every section, as one ONNX graph of standard operators.
 */
import { differentiate, MissingGradientError } from "../autodiff/reverse.js";
import { FishyError, UsageError } from "../errors.js";
import type { Score } from "../families/family.js";
import { annotateShapes } from "../onnx/annotate-shapes.js";
import { GraphBuilder, type ValueType, valueInfo } from "../onnx/builder.js";
import { checkModel } from "../onnx/check.js";
import { prune } from "../onnx/graph.js";
import { DataType, type GraphProto, type ModelProto, type TensorProto } from "../onnx/proto.js";
import { dimsOf } from "../onnx/tensor.js";
import { tensorType } from "../onnx/types.js";
import { cutIntoSections, type SectionPlan } from "../sections/plan.js";
import type { SectionSpec } from "../sections/spec.js";
import type { StatisticsTerm } from "../sections/statistics-term.js";
import { emitExpected } from "./expected.js";
import {
  MANIFEST_VERSION,
  type Manifest,
  type ManifestParameter,
  type ProgramDraw,
  type TrainingProgram,
  writeManifest,
} from "./manifest.js";
import { type PreparedModel, type PrepareOptions, prepare, SEED_INPUT } from "./prepare.js";
import { emitBatchSize, emitLoss, requireFreeName } from "./program-loss.js";
import { passOverShare } from "./sampled-share.js";
import { emitSampled, type LocalPass } from "./sampling.js";
import { declareSmallMaps } from "./small-maps.js";

/** How a source model becomes a training program. */
export interface RewriteOptions extends Omit<PrepareOptions, "lossOptional"> {
  /** A model input to use as the loss's target, such as an autoencoder's own input; otherwise `labels` or `target` is added. */
  readonly targetInput?: string;
  /** Where to sample. Default: every layer. */
  readonly sections?: SectionSpec;
  /** Default `paper`. */
  readonly score?: Score;
  /** Default `exact`. */
  readonly draw?: ProgramDraw;
  /**
   * The share of a batch, in (0, 1], that is sampled and propagated back: its first examples. Default 1. Needs a dynamic
   * batch axis, and sections that examples pass without meeting each other.
   */
  readonly sampledShare?: number;
}

const DEFAULT_SECTIONS: SectionSpec = { kind: "per-layer" };

/**
 * Rewrites a source model into a training program. The source is not changed.
 * @throws FishyError for a loss that does not fit, an unknown boundary, an operator without gradient, frozen everything.
 */
export async function rewrite(source: ModelProto, options: RewriteOptions = {}): Promise<TrainingProgram> {
  return emitProgram(await prepare(source, options), options);
}

/**
 * The boundaries and sections that `rewrite` would make with the same options.
 * @throws FishyError as `rewrite` does.
 */
export async function planSections(source: ModelProto, options: RewriteOptions = {}): Promise<SectionPlan> {
  return sectionsOf(await prepare(source, options), options.sections ?? DEFAULT_SECTIONS);
}

/** The same for a prepared model. */
export function sectionsOf(prepared: PreparedModel, spec: SectionSpec): SectionPlan {
  if (spec.kind === "none") return { boundaries: [], sections: [] };
  if (!prepared.loss) throw new Error("the model was prepared without a loss");
  if (!prepared.output) {
    throw new FishyError(
      `The loss '${prepared.loss.output}' in the graph is of no form that fishy recognises, so the family of the output layer is unknown. ` +
        "Export the model without its loss and use --loss, or use --sections none (no sampling).",
    );
  }
  return cutIntoSections({
    graph: prepared.model.graph,
    types: prepared.types,
    parameters: prepared.parameters.trainable.map((tensor) => tensor.name ?? ""),
    layers: prepared.layers,
    output: prepared.output,
    spec,
  });
}

/** Emits the program of a prepared model, whose graph becomes the program's. */
function emitProgram(prepared: PreparedModel, options: RewriteOptions = {}): TrainingProgram {
  if (prepared.withoutGradient.length > 0) {
    throw new MissingGradientError(prepared.withoutGradient, prepared.refusals);
  }
  const { model, types, loss: lossChoice } = prepared;
  if (!lossChoice) throw new Error("the model was prepared without a loss");
  const { graph } = model;
  const score = options.score ?? "paper";
  const draw = options.draw ?? "exact";
  const plan = sectionsOf(prepared, options.sections ?? DEFAULT_SECTIONS);
  const forward: GraphProto = { ...graph, node: [...graph.node] };
  const b = new GraphBuilder(graph);
  const batchSize = b.scope("batch_size", () => emitBatchSize(b, prepared));

  const loss = b.scope("loss", () => emitLoss(b, prepared, lossChoice, options, batchSize));
  const wrt = prepared.parameters.trainable.map((tensor) => tensor.name ?? "");
  const gradients = differentiate({ builder: b, forward, types, wrt, seeds: loss.seeds });
  const cotangents = [...loss.seeds.values()];

  const pass: LocalPass = {
    ...{ b, forward, types, plan, layers: prepared.layers, wrt, score, seed: SEED_INPUT, batchSize, cotangents },
    activationOf: ({ activation, preActivation }) =>
      activation ?? (preActivation === prepared.output?.preActivation ? loss.activation : undefined),
  };
  const share = shareOf(options);
  const local = localPass(
    share < 1 && plan.boundaries.length > 0 ? passOverShare(pass, share, prepared.inputs) : pass,
    draw,
  );
  const parameters = prepared.parameters.trainable.map((tensor): ManifestParameter => {
    const name = tensor.name ?? "";
    declareInput(graph, name, tensorType(tensor));
    const gradient = declareOutput(b, requireGradient(gradients, name), `${name}_grad`, tensor);
    const parameter = { name, dims: dimsOf(tensor), gradient };
    if (!local) return parameter;
    const section = plan.sections.findIndex((candidate) => candidate.parameters.includes(name));
    if (local.kind === "expected") {
      return { ...parameter, section, statistics: declareTerms(b, local.terms.get(name) ?? [], tensor) };
    }
    const sampledGradient = declareOutput(b, requireGradient(local.gradients, name), `${name}_sampled_grad`, tensor);
    return { ...parameter, section, sampledGradient };
  });
  const runningStatistics = prepared.runningStatistics.flatMap(({ name, next }) => {
    const tensor = graph.initializer.find((initializer) => initializer.name === name);
    if (!tensor) return [];
    declareInput(graph, name, tensorType(tensor));
    return [{ name, next: declareOutput(b, next, `${name}_next`, tensor) }];
  });

  const manifest: Manifest = {
    version: MANIFEST_VERSION,
    loss: loss.manifest,
    inputs: prepared.inputs,
    outputs: prepared.outputs,
    seed: SEED_INPUT,
    lossOutput: "loss",
    parameters,
    frozen: prepared.parameters.frozen,
    runningStatistics,
    score,
    draw,
    ...(share < 1 && local && { sampledShare: share }),
    cotangents,
    boundaries: plan.boundaries.map(({ name, preActivation, activation, family }) => ({
      name,
      preActivation,
      ...(activation && { activation }),
      family: family.name,
      familyParameters: family.parameters,
    })),
    sections: plan.sections,
  };
  prune(graph);
  annotateShapes(graph, types);
  declareSmallMaps(graph, forward.node, (name) => types.get(name));
  model.producerName = "fishy";
  writeManifest(model, manifest);
  checkModel(model);
  return { model, manifest };
}

function shareOf({ sampledShare = 1 }: RewriteOptions): number {
  if (sampledShare > 0 && sampledShare <= 1) return sampledShare;
  throw new UsageError(`The share of the batch that is sampled must be above 0 and at most 1; got ${sampledShare}.`);
}

type LocalResult =
  | { readonly kind: "sampled"; readonly gradients: ReadonlyMap<string, string> }
  | { readonly kind: "expected"; readonly terms: ReadonlyMap<string, readonly StatisticsTerm[]> };

function localPass(pass: LocalPass, draw: ProgramDraw): LocalResult | undefined {
  if (pass.plan.boundaries.length === 0) return undefined;
  if (draw === "expected") return { kind: "expected", terms: emitExpected(pass) };
  return { kind: "sampled", gradients: emitSampled(pass, draw) };
}

/** Makes the values of terms outputs of the program, under names of the parameter's. */
function declareTerms(b: GraphBuilder, terms: readonly StatisticsTerm[], tensor: TensorProto): StatisticsTerm[] {
  const name = tensor.name ?? "";
  const rows: ValueType = { elemType: DataType.FLOAT, shape: [null, null] };
  const declare = (value: string, output: string, type: ValueType) => {
    b.alias(value, output);
    b.output(output, type);
    return output;
  };
  return terms.map((term, i): StatisticsTerm => {
    if (term.kind === "gradient") {
      return { ...term, value: declare(term.value, `${name}_statistics_${i}`, tensorType(tensor)) };
    }
    return {
      ...term,
      input: declare(term.input, `${name}_statistics_input`, rows),
      output: declare(term.output, `${name}_statistics_output`, rows),
      weight: declare(term.weight, `${name}_statistics_weight`, { elemType: DataType.FLOAT, shape: [] }),
    };
  });
}

function requireGradient(gradients: ReadonlyMap<string, string>, name: string): string {
  const gradient = gradients.get(name);
  if (!gradient) {
    throw new FishyError(
      `The gradient of parameter '${name}' is zero everywhere: it reaches the loss only through operators without slope. Freeze it (--freeze '${name}').`,
    );
  }
  return gradient;
}

function declareInput(graph: GraphProto, name: string, type: ValueType): void {
  if (!graph.input.some((input) => input.name === name)) graph.input.push(valueInfo(name, type));
}

function declareOutput(b: GraphBuilder, value: string, name: string, tensor: TensorProto): string {
  requireFreeName(b, name);
  b.alias(value, name);
  b.output(name, tensorType(tensor));
  return name;
}
