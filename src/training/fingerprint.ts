/** What a checkpoint must share with a run that goes on from it, bit for bit, and how to say what differs. */
import { encodeModel } from "../onnx/codec.js";
import type { TrainingProgram } from "../rewrite/manifest.js";
import { sha256 } from "./checkpoint.js";

export interface Fingerprint {
  /** SHA-256 of the training program. */
  readonly program: string;
  /** Options that decide the numbers, nested names joined with dots. */
  readonly options: Readonly<Record<string, string>>;
}

/** @param options what decides the numbers, beside the program. */
export function fingerprintOf(program: TrainingProgram, options: object): Fingerprint {
  const { manifest, model } = program;
  const described = {
    loss: manifest.loss,
    nodes: model.graph.node.length,
    parameters: manifest.parameters.map(({ name, dims }) => `${name} [${dims.join(", ")}]`),
    boundaries: manifest.boundaries.map(({ name }) => name),
    score: manifest.score,
    draw: manifest.draw,
  };
  return {
    program: sha256(encodeModel(model)),
    options: Object.fromEntries([...flatten({ ...options, program: described })].sort()),
  };
}

/** What differs, each such as `batchSize: 64, now 128`; empty when nothing does. */
export function differencesOf(before: Fingerprint, now: Fingerprint): string[] {
  const names = [...new Set([...Object.keys(before.options), ...Object.keys(now.options)])];
  const differing = names
    .filter((name) => before.options[name] !== now.options[name])
    .map((name) => `${name}: ${before.options[name] ?? "not set"}, now ${now.options[name] ?? "not set"}`);
  const isProgramSame = before.program === now.program || differing.some((text) => text.startsWith("program."));
  return isProgramSame ? differing : [...differing, "program: other weights or other nodes"];
}

function flatten(value: unknown, prefix = ""): Map<string, string> {
  if (value === undefined || value === null) return new Map();
  if (Array.isArray(value)) return new Map([[prefix, value.join(", ")]]);
  if (typeof value !== "object") return new Map([[prefix, String(value)]]);
  return new Map(
    Object.entries(value).flatMap(([key, inner]) => [...flatten(inner, prefix ? `${prefix}.${key}` : key)]),
  );
}
