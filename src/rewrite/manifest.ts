/** The manifest of a training program: what its inputs, outputs, parameters and sections are. Stored as JSON in `metadata_props["fishy"]`. */
import { FishyError } from "../errors.js";
import type { Draw, Score } from "../families/family.js";
import type { LossName } from "../losses/loss.js";
import type { ModelProto } from "../onnx/proto.js";
import type { StatisticsTerm } from "../sections/statistics-term.js";

export const MANIFEST_KEY = "fishy";
export const MANIFEST_VERSION = 1;

/** How a program draws: `expected` gives the ingredients of the expected statistics instead of samples. */
export type ProgramDraw = Draw | "expected";

/** A parameter that a program has a gradient of. */
export interface ManifestParameter {
  readonly name: string;
  readonly dims: readonly number[];
  /** Output with the gradient of the loss. */
  readonly gradient: string;
  /** Output with the sampled gradient; absent when the program samples nothing. */
  readonly sampledGradient?: string;
  /** Under `draw: expected`, instead of a sampled gradient: terms by output names. */
  readonly statistics?: readonly StatisticsTerm[];
  /** Index into `sections`; absent when the program samples nothing. */
  readonly section?: number;
}

/** Where a program samples. */
export interface ManifestBoundary {
  /** The layer's name. */
  readonly name: string;
  /** The value that is sampled at, and its activation where there is one. */
  readonly preActivation: string;
  readonly activation?: string;
  readonly family: string;
  readonly familyParameters: Readonly<Record<string, number>>;
}

/** A section of a program and its parameters. */
export interface ManifestSection {
  readonly name: string;
  /** Indices into `boundaries`. */
  readonly boundaries: readonly number[];
  readonly parameters: readonly string[];
}

/** The loss of a program. */
export interface ManifestLoss {
  readonly name: LossName;
  /** The model output that the loss is taken of; absent when the loss was in the graph. */
  readonly output?: string;
  /** The source model's output that is the loss, when it was in the graph. */
  readonly value?: string;
  /** The input with the labels or target values; absent when the loss was in the graph. */
  readonly target?: string;
  /** Softmax cross-entropy: the axis of the classes, and their number where it is static. */
  readonly classAxis?: number;
  readonly classes?: number;
  /**
   * How examples come together: their mean, their sum, or the mean over labels with weights (or some ignored). Absent
   * where the form of a loss in the graph does not tell.
   */
  readonly reduction?: "mean" | "sum" | "weighted";
  /** `weighted`: the output with the sum of the weights, a float scalar. */
  readonly weight?: string;
}

/** What a training program says of itself, kept in its metadata as JSON. */
export interface Manifest {
  readonly version: typeof MANIFEST_VERSION;
  readonly loss: ManifestLoss;
  /** The source model's own inputs and outputs, in its order. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** Input that seeds sampling and dropout: an int64 scalar. */
  readonly seed: "seed";
  /** Output with the loss: a float scalar. */
  readonly lossOutput: "loss";
  readonly parameters: readonly ManifestParameter[];
  /** Initializers that could have been trained and are not. */
  readonly frozen: readonly string[];
  /** Running statistics: the initializer (also an input) and the output with its next value. */
  readonly runningStatistics: readonly { readonly name: string; readonly next: string }[];
  readonly score: Score;
  readonly draw: ProgramDraw;
  /** The share of a batch that is sampled, where it is not the whole. */
  readonly sampledShare?: number;
  /** Values that start the backward passes, which are linear in them and the only ones to read them. */
  readonly cotangents?: readonly string[];
  readonly boundaries: readonly ManifestBoundary[];
  readonly sections: readonly ManifestSection[];
}

/** A rewritten model: valid ONNX of standard operators, and its manifest. */
export interface TrainingProgram {
  readonly model: ModelProto;
  readonly manifest: Manifest;
}

/** Puts the manifest into the model's metadata. */
export function writeManifest(model: ModelProto, manifest: Manifest): void {
  model.metadataProps = model.metadataProps.filter((entry) => entry.key !== MANIFEST_KEY);
  model.metadataProps.push({ key: MANIFEST_KEY, value: JSON.stringify(manifest) });
}

/**
 * The manifest of a model, or undefined when the model is no training program.
 * @throws FishyError when the manifest is damaged or of another version.
 */
export function readManifest(model: ModelProto, source = "the model"): Manifest | undefined {
  const value = model.metadataProps.find((entry) => entry.key === MANIFEST_KEY)?.value;
  if (value === undefined) return undefined;
  let manifest: Manifest;
  try {
    manifest = JSON.parse(value) as Manifest;
  } catch {
    throw new FishyError(`The fishy manifest of ${source} is not JSON. Rewrite the source model again.`);
  }
  if (manifest.version !== MANIFEST_VERSION) {
    throw new FishyError(
      `${source} was rewritten with manifest version ${manifest.version}; this fishy reads version ${MANIFEST_VERSION}. Rewrite the source model again.`,
    );
  }
  return manifest;
}
