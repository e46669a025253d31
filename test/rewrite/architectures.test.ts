/** Losses and gradients of architectures as both of PyTorch's exporters write them, against PyTorch's float64 autograd. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { decodeSafetensors, type SafetensorsFile } from "../../src/data/safetensors.js";
import { decodeModel } from "../../src/onnx/codec.js";
import { rewrite } from "../../src/rewrite/rewrite.js";
import type { SectionSpec } from "../../src/sections/spec.js";
import { goldenLoss, runGolden } from "../support/golden-run.js";
import { relativeError } from "../support/run.js";
import { GRAPHS } from "../support/shared.js";

const TOLERANCE = 1e-4;
const folder = join(GRAPHS, "architectures");
const names = readdirSync(folder).filter((name) => existsSync(join(folder, name, "golden.safetensors")));

/** Where `dynamo.onnx` keeps a parameter: its initializer, and how it is stored. */
function locate(golden: SafetensorsFile, parameter: string): { name: string; how: string | undefined } {
  const renamed = JSON.parse(golden.metadata.dynamo_renamed ?? "{}") as Record<string, string>;
  const place = renamed[parameter];
  if (place === undefined) return { name: parameter, how: undefined };
  const match = /^(.*):(transposed|reshaped)$/.exec(place);
  return match ? { name: match[1] as string, how: match[2] } : { name: place, how: undefined };
}

const norm = (values: ArrayLike<number>) => Math.hypot(...Array.from(values));

function transpose(data: ArrayLike<number>, [rows, columns]: readonly [number, number]): Float64Array {
  return Float64Array.from({ length: rows * columns }, (_, i) => {
    const [row, column] = [Math.floor(i / rows), i % rows];
    return data[column * columns + row] as number;
  });
}

async function check(name: string, file: "model.onnx" | "dynamo.onnx"): Promise<void> {
  const golden = decodeSafetensors(readFileSync(join(folder, name, "golden.safetensors")), name);
  const model = decodeModel(readFileSync(join(folder, name, file)), name);
  // dynamo writes BatchNormalization for inference: its reference uses the running statistics.
  const prefix = file === "dynamo.onnx" && golden.tensors.has("eval/loss") ? "eval/" : "";
  const expected = (key: string) => golden.tensors.get(`${prefix}${key}`)?.data as Float64Array;
  const loss = goldenLoss({ model, golden });
  // A loss of the model's own making has no family; everything else is sampled at every layer.
  const sections: SectionSpec = { kind: loss === "in-graph" ? "none" : "per-layer" };
  const names = [...golden.tensors.keys()]
    .filter((key) => key.startsWith(`${prefix}grad/`))
    .map((key) => key.slice(`${prefix}grad/`.length));
  const places = new Map(
    names.map((parameter) => [
      parameter,
      file === "dynamo.onnx" ? locate(golden, parameter) : { name: parameter, how: undefined },
    ]),
  );
  // A parameter of one element under a generated name (a slope) passes for a constant unless it is named.
  const trainable = [...places.values()].map((place) => place.name);
  const program = await rewrite(model, { loss, sections, trainable });
  const results = await runGolden({ model, golden }, program);
  const reference = expected("loss")[0] as number;
  expect(Math.abs(Number(results.loss?.data[0]) - reference)).toBeLessThan(2e-6 * Math.max(1, Math.abs(reference)));
  const gradients = new Map(program.manifest.parameters.map((parameter) => [parameter.name, parameter]));
  const largest = Math.max(...names.map((parameter) => norm(expected(`grad/${parameter}`))));
  for (const [parameter, place] of places) {
    const found = gradients.get(place.name);
    expect(found, `parameter ${parameter}`).toBeDefined();
    if (!found) continue;
    const [rows = 1, columns = 1] = golden.tensors.get(`${prefix}grad/${parameter}`)?.dims ?? [];
    const stored = expected(`grad/${parameter}`);
    const want = place.how === "transposed" ? transpose(stored, [rows, columns]) : stored;
    const gradient = results[found.gradient]?.data as Float32Array;
    // Some gradients are zero but for rounding (a bias before a normalisation, of keys before a softmax).
    if (norm(want) < 1e-10 * largest) expect(norm(gradient), parameter).toBeLessThan(1e-6 * largest);
    else expect(relativeError(gradient, want), parameter).toBeLessThan(TOLERANCE);
  }
}

describe.each(names)("%s", (name) => {
  const has = (file: string) => existsSync(join(folder, name, file));
  it.runIf(has("model.onnx"))("as TorchScript writes it", () => check(name, "model.onnx"));
  it.runIf(has("dynamo.onnx"))("as dynamo writes it", () => check(name, "dynamo.onnx"));
});
