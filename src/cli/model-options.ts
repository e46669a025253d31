/** Options that say how a source model becomes a program: shared by inspect, rewrite and train; its loss also by eval. */
import { readFileSync } from "node:fs";
import { type Command, InvalidArgumentError, Option } from "commander";
import { FishyError, messageOf } from "../errors.js";
import { LOSS_NAMES, type LossName } from "../losses/loss.js";
import type { RewriteOptions } from "../rewrite/rewrite.js";
import { parsePlan } from "../sections/plan-file.js";
import { parseSections, type SectionSpec } from "../sections/spec.js";

/** What tells the loss of a model, and of what it is taken. */
export interface LossFlags {
  loss?: LossName;
  lossOutput?: string;
  targetInput?: string;
  classAxis?: number;
}

export interface ModelFlags extends LossFlags {
  sections?: string;
  score?: "paper" | "centred";
  draw?: "exact" | "fast" | "two-point" | "expected";
  sampledShare?: number;
  freeze?: string[];
  trainable?: string[];
  trainBatchNorm?: boolean;
  straightThrough?: boolean;
}

export function addLossOptions(command: Command): Command {
  return command
    .addOption(
      new Option("--loss <name>", "loss to append; default in-graph when the model's only output is a scalar").choices([
        ...LOSS_NAMES,
      ]),
    )
    .option("--loss-output <name>", "model output that the loss is taken of, or that is the loss")
    .option("--target-input <name>", "model input to use as the target, such as an autoencoder's own input")
    .option("--class-axis <k>", "axis of the classes; default 1, the last for outputs of rank 3", parseInteger);
}

export function addModelOptions(command: Command): Command {
  return addLossOptions(command)
    .option(
      "--sections <spec>",
      "where to sample: per-layer, output, classifier, every:K, none, layer names separated by commas, or a plan (FILE.yaml)",
    )
    .addOption(new Option("--score <kind>", "y − ŷ as in the paper, or y − E[y]").choices(["paper", "centred"]))
    .addOption(
      new Option("--draw <kind>", "how y is drawn; expected: the statistics' expectation instead of a draw").choices([
        "exact",
        "fast",
        "two-point",
        "expected",
      ]),
    )
    .option(
      "--sampled-share <fraction>",
      "sample the first examples of a batch alone, such as 0.25 of it; default 1",
      parseNumber,
    )
    .option("--train-batch-norm", "train batch normalisations that were exported for inference (dynamo=True)")
    .option("--straight-through", "let gradients pass straight through QuantizeLinear and DequantizeLinear")
    .option("--freeze <patterns...>", "parameters that do not train: names with * and ?")
    .option("--trainable <patterns...>", "the only ones that train; default all, or what training artifacts say");
}

export function rewriteOptionsOf(flags: ModelFlags): RewriteOptions {
  return {
    ...(flags.loss && { loss: flags.loss }),
    ...(flags.lossOutput && { output: flags.lossOutput }),
    ...(flags.targetInput && { targetInput: flags.targetInput }),
    ...(flags.classAxis !== undefined && { classAxis: flags.classAxis }),
    ...(flags.sections && { sections: readSections(flags.sections) }),
    ...(flags.score && { score: flags.score }),
    ...(flags.draw && { draw: flags.draw }),
    ...(flags.sampledShare !== undefined && { sampledShare: flags.sampledShare }),
    ...(flags.freeze && { freeze: flags.freeze }),
    ...(flags.trainBatchNorm && { trainBatchNorm: true }),
    ...(flags.straightThrough && { straightThrough: true }),
    ...(flags.trainable && { trainable: flags.trainable }),
  };
}

/** Whether `--sections` names a plan in a file. */
export function isPlanFile(text: string): boolean {
  return /\.(ya?ml|json)$/i.test(text);
}

/** A plan in a file (`fishy inspect --plan`), or what `parseSections` takes. */
function readSections(text: string): SectionSpec {
  if (!isPlanFile(text)) return parseSections(text);
  let plan: string;
  try {
    plan = readFileSync(text, "utf8");
  } catch (error) {
    throw new FishyError(
      `The plan ${text} cannot be read: ${messageOf(error)}. fishy inspect MODEL --plan FILE writes one.`,
    );
  }
  return parsePlan(plan, text);
}

export function parseInteger(text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !Number.isInteger(value))
    throw new InvalidArgumentError(`'${text}' is not a whole number.`);
  return value;
}

export function parseNumber(text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value)) throw new InvalidArgumentError(`'${text}' is not a number.`);
  return value;
}
