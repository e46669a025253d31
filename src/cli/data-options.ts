/** Options that say how a dataset is read and fills a program's inputs: shared by train and eval. */
import type { Command } from "commander";
import type { Scale } from "../data/convert.js";
import { UsageError } from "../errors.js";
import { parseInteger } from "./model-options.js";

export interface DataFlags {
  input?: string[];
  scale?: string;
  mean?: string;
  std?: string;
  imageSize?: string;
  sequenceLength?: number;
  stream?: boolean;
}

/** What `--data` takes, for its help. */
export const DATA_FORMATS =
  "dataset files or folders, each PATH or NAME=PATH (IDX, CIFAR, NumPy, safetensors, CSV, Parquet, JSON lines, texts, folders of images by class)";

export function addDataOptions(command: Command): Command {
  return command
    .option("--input <mappings...>", "program input by dataset column: INPUT=COLUMN, or INPUT=COLUMN,COLUMN,… to join")
    .option("--scale <how>", "integers to floats: auto divides bytes by 255, none, or a factor")
    .option("--mean <numbers>", "normalise inputs: subtract this mean, or one for each channel, separated by commas")
    .option("--std <numbers>", "and divide by this deviation, or one for each channel")
    .option("--image-size <size>", "resize and crop images: HEIGHTxWIDTH, or one number for both")
    .option(
      "--sequence-length <n>",
      "tokens in a sequence of texts and token files; default what the model takes",
      parseInteger,
    )
    .option("--stream", "read Parquet, folders of images and arrays a part at a time; default when they exceed 512 MiB")
    .option("--no-stream", "read everything into memory");
}

interface DataOptions {
  inputs?: Record<string, string>;
  scale?: Scale;
  normalize?: { mean: number[]; std: number[] };
  imageSize?: [number, number];
  sequenceLength?: number;
  stream?: boolean;
}

export function dataOptionsOf(flags: DataFlags): DataOptions {
  const { input, scale, mean, std, imageSize, sequenceLength, stream } = flags;
  if ((mean === undefined) !== (std === undefined)) throw new UsageError("--mean and --std go together: give both.");
  return {
    ...(input && { inputs: mappingsOf(input) }),
    ...(scale !== undefined && { scale: Number.isFinite(Number(scale)) ? Number(scale) : (scale as "auto" | "none") }),
    ...(mean !== undefined && {
      normalize: { mean: numbersOf("--mean", mean), std: numbersOf("--std", std as string) },
    }),
    ...(imageSize !== undefined && { imageSize: sizeOf(imageSize) }),
    ...(sequenceLength !== undefined && { sequenceLength }),
    ...(stream !== undefined && { stream }),
  };
}

/** Numbers separated by commas. */
export function numbersOf(flag: string, text: string): number[] {
  const numbers = text.split(",").map((part) => (part.trim() === "" ? Number.NaN : Number(part)));
  if (!numbers.every(Number.isFinite)) throw new UsageError(`${flag} '${text}' must be numbers separated by commas.`);
  return numbers;
}

function sizeOf(text: string): [number, number] {
  const match = /^(\d+)(?:x(\d+))?$/.exec(text);
  if (!match) throw new UsageError(`--image-size '${text}' must be HEIGHTxWIDTH, such as 224x224, or one number.`);
  return [Number(match[1]), Number(match[2] ?? match[1])];
}

function mappingsOf(mappings: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    mappings.map((mapping) => {
      const at = mapping.indexOf("=");
      if (at < 1) throw new UsageError(`--input '${mapping}' must be INPUT=COLUMN.`);
      return [mapping.slice(0, at), mapping.slice(at + 1)];
    }),
  );
}
