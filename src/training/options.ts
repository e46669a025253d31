/** The options of a run that can be written down: what a configuration file holds and `options.json` keeps. */
import { z } from "zod";
import { UsageError } from "../errors.js";
import { number, option, parseOptions } from "../optimizers/options.js";
import type { OptimizerOptions } from "../optimizers/registry.js";
import { DEVICE_SYNTAX, parseDevice } from "../runtime/devices.js";
import { METRICS } from "./best.js";
import { PRECISIONS } from "./precision.js";

/** Beyond it numbers are not known to their last digit, and many a seed would be one. */
const LARGEST = Number.MAX_SAFE_INTEGER;

const count = number({ min: 1, integer: true });
const text = z.string({ error: "must be a text" });
const paths = z.union([text.transform((path) => [path]), z.array(text)], {
  error: "must be a path or a list of paths",
});

const numbers = z.array(number()).min(1);
const positives = z.array(number({ min: 0, openMin: true })).min(1);

/** More than any machine has cores for: ONNX Runtime's threads spin, so that too many of them block the machine. */
const threads = number({ min: 0, max: 1024, integer: true });

const runOptions = z.strictObject({
  data: paths.optional().describe("Files or folders of the dataset, each PATH or NAME=PATH."),
  heldOut: z
    .union([number({ min: 0 }), paths], { error: "must be a fraction, a number of examples, or paths" })
    .default(0)
    .describe("What is held out for evaluation: a fraction, a number of examples, or a dataset of its own."),
  splitSeed: option(number({ min: -LARGEST, max: LARGEST, integer: true }), 0, "Chooses the held-out examples."),
  inputs: z.record(z.string(), text).default({}).describe("Column by program input, where names do not tell."),
  scale: z
    .union([z.literal("auto"), z.literal("none"), number()], { error: "must be auto, none or a number" })
    .default("auto")
    .describe("How integers become floats: auto divides bytes by 255."),
  normalize: z
    .strictObject({ mean: numbers, std: positives })
    .refine(({ mean, std }) => mean.length === std.length, { error: "must have as many deviations as means" })
    .optional()
    .describe("Mean and standard deviation of the inputs, one or one for each channel; of values after scaling."),
  augment: z
    .strictObject({
      crop: option(number({ min: 0, integer: true }), 0, "Pixels that an image is shifted by at most."),
      flip: z.boolean().default(false).describe("Mirror half of the images."),
    })
    .optional()
    .describe("Augmentation of the training images."),
  imageSize: z.tuple([count, count]).optional().describe("Height and width that images are resized and cropped to."),
  sequenceLength: count
    .optional()
    .describe("Tokens in a sequence, of texts and token files; default what the model takes."),
  lastBatch: z
    .enum(["drop", "pad"])
    .default("drop")
    .describe("What becomes of the examples left at the end of an epoch; pad adds the epoch's first ones to them."),
  stream: z.boolean().optional().describe("Read the data a part at a time; default when they exceed 512 MiB."),
  prefetch: number({ min: 0, integer: true })
    .optional()
    .describe(
      "Batches made ahead by a thread of their own; default 2 for images and streamed data from files, else 0.",
    ),
  optimizer: z.custom<OptimizerOptions>().optional().describe("The optimizer: its name and its own options."),
  steps: count.optional().describe("Steps to train."),
  epochs: number({ min: 0, openMin: true }).optional().describe("Epochs to train, instead of steps."),
  batchSize: count.optional().describe("Examples in a batch; default 128, or what the model is fixed to."),
  accumulation: option(
    count,
    1,
    "Batches in a step: their gradients together are that of one batch of all their examples. Steps, schedules and intervals count steps.",
  ),
  statisticsBatch: z
    .union([z.literal("separate"), count], { error: "must be separate, or a number of examples of at least 1" })
    .optional()
    .describe(
      "Takes the statistics on a batch of their own, of as many examples (separate: as many as a batch has), from the training examples in an order of their own; default the gradient's batch.",
    ),
  seed: option(number({ min: 0, max: LARGEST, integer: true }), 0, "Seeds the order of the data and the sampling."),
  shuffle: z.boolean().default(true).describe("Shuffle the examples anew in every epoch."),
  evaluateEvery: number({ min: 0, integer: true })
    .optional()
    .describe("Steps between evaluations of the held-out examples; default one epoch, 0 only at the end."),
  averaged: z
    .boolean()
    .default(false)
    .describe(
      "Evaluate, follow and export the running averages of the parameters (the optimizer's averageDecay) instead of the parameters.",
    ),
  metric: z.enum(METRICS).default("loss").describe("What tells which evaluation is the best."),
  patience: count.optional().describe("Stops after as many evaluations without a better one."),
  minDelta: option(number({ min: 0 }), 0, "By how much an evaluation must be better to count as better."),
  keepBest: z
    .boolean()
    .default(false)
    .describe(
      "Keep the state of the best evaluation, as a checkpoint where the run has a folder, and export its model.",
    ),
  checkpointEvery: option(number({ min: 0, integer: true }), 0, "Steps between checkpoints; 0 only at the end."),
  keepCheckpoints: option(count, 3, "Checkpoints to keep, the newest."),
  tensorboard: z.boolean().default(false).describe("Write TensorBoard's event files into the run's folder."),
  device: text.default("cpu").describe(`Where steps run: ${DEVICE_SYNTAX}.`),
  preconditionerDevice: text
    .optional()
    .describe("A second device, or a second session on the same, for statistics and roots: cpu, cuda or cuda:N."),
  precision: z
    .enum(PRECISIONS)
    .default("float32")
    .describe("Type of the matrix products and convolutions of the forward and backward passes."),
  stepsPerRun: count
    .optional()
    .describe("Steps that run without a return to this process; default 1 on the CPU, up to 64 with CUDA."),
  threads: option(threads, 0, "Threads of ONNX Runtime; 0 one for each core."),
});

/** Options of a run as a user gives them. */
export type RunOptions = z.input<typeof runOptions>;
/** The same, complete. */
export type ResolvedRunOptions = z.output<typeof runOptions>;

export const DEFAULT_BATCH_SIZE = 128;
export const DEFAULT_EPOCHS = 10;

/** @throws UsageError for what is no number of threads. */
export function checkThreads(value: number): void {
  parseOptions(z.strictObject({ threads }), { threads: value }, "eval");
}

/**
 * Checks options and fills in the defaults.
 * @throws UsageError naming each wrong option.
 */
export function parseRunOptions(options: RunOptions): ResolvedRunOptions {
  const parsed = parseOptions(runOptions, options, "train");
  parseDevice(parsed.device);
  if (parsed.preconditionerDevice !== undefined) parseDevice(parsed.preconditionerDevice);
  if (parsed.steps !== undefined && parsed.epochs !== undefined) {
    throw new UsageError(`Both steps (${parsed.steps}) and epochs (${parsed.epochs}) are given. Give one of them.`);
  }
  return parsed;
}
