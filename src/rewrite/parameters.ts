/**
 * What trains. A parameter is a float initializer that the loss depends on through differentiable operators, except
 * - buffers: the running statistics of a BatchNormalization;
 * - constants: one element under a name that an exporter generated (`onnx::Mul_12`, `val_3`, `const_1`);
 * - what `--freeze` names, and what `--trainable` does not.
 */
import { planReverse } from "../autodiff/reverse.js";
import { FishyError } from "../errors.js";
import { moduleNames } from "../onnx/module-names.js";
import { DataType, type GraphProto, type TensorProto } from "../onnx/proto.js";
import { dataTypeName, dimsOf, elementCount } from "../onnx/tensor.js";
import type { TypeMap } from "../onnx/types.js";

export interface ParameterChoice {
  /** In the order of the graph's initializers. */
  readonly trainable: readonly TensorProto[];
  /** Candidates that `freeze` took out, or `trainable` does not name. */
  readonly frozen: readonly string[];
  /** Running statistics. */
  readonly buffers: readonly string[];
}

export interface ParameterOptions {
  /** Glob patterns (`*` any run of characters, `?` one) against the whole name. */
  readonly freeze?: readonly string[];
  /** Patterns or names of what trains, of which `freeze` takes out; everything when undefined. */
  readonly trainable?: readonly string[];
}

const GENERATED_NAME = /^(onnx::|val_\d|_?const(ant)?(_|\d|$)|\/|scalar_|ortshared)/i;

/**
 * Chooses the parameters.
 * @param roots values that the loss flows through: the loss itself, or the model's output.
 * @throws FishyError when a pattern matches nothing, when nothing is left to train, or for a type that is not float32.
 */
export function chooseParameters(
  graph: GraphProto,
  types: TypeMap,
  roots: readonly string[],
  options: ParameterOptions = {},
): ParameterChoice {
  const buffers = runningStatistics(graph);
  const floats = floatInitializers(graph, options);
  const { active } = planReverse({ forward: graph, types, wrt: floats.map(name), seeds: new Set(roots) });
  const reached = floats.filter((tensor) => active.has(name(tensor)));
  const isChosen = options.trainable && matcher(options.trainable);
  const candidates = isChosen ? reached.filter((tensor) => isChosen(name(tensor))) : reached;
  if (candidates.length === 0 && reached.length > 0) {
    throw new FishyError(
      `Nothing can be trained: --trainable ${options.trainable?.join(" ")} names no parameter that the loss depends on. Those are: ${reached.map(name).join(", ")}.`,
    );
  }
  if (candidates.length === 0) {
    throw new FishyError(
      `Nothing can be trained: none of the ${graph.initializer.length} initializers is a float tensor that the loss depends on. ` +
        "Export the model with its weights as initializers (torch.onnx.export with export_params=True).",
    );
  }
  const modules = moduleNames(graph);
  // A weight that the exporter renamed also goes by its module's name.
  const namesOf = (tensor: TensorProto) => {
    const module = modules.get(name(tensor));
    return module ? [name(tensor), `${module}.weight`] : [name(tensor)];
  };
  const patterns = (options.freeze ?? []).map((pattern) => ({ pattern, regex: globToRegex(pattern) }));
  const frozen = new Set<string>(reached.filter((tensor) => !candidates.includes(tensor)).map(name));
  for (const { pattern, regex } of patterns) {
    const matched = candidates.filter((tensor) => namesOf(tensor).some((label) => regex.test(label)));
    if (matched.length === 0) {
      throw new FishyError(
        `--freeze '${pattern}' matches no parameter. The parameters are: ${candidates.map(name).join(", ")}.`,
      );
    }
    for (const tensor of matched) frozen.add(name(tensor));
  }
  const trainable = candidates.filter((tensor) => !frozen.has(name(tensor)));
  if (trainable.length === 0) {
    throw new FishyError(
      `--freeze ${(options.freeze ?? []).join(" ")} freezes all ${candidates.length} parameters: nothing is left to train. Freeze fewer.`,
    );
  }
  const strange = trainable.find((tensor) => tensor.dataType !== DataType.FLOAT);
  if (strange) {
    throw new FishyError(
      `Parameter '${name(strange)}' is ${dataTypeName(strange.dataType ?? 0)}; fishy trains float32 parameters. Export the model in float32, or freeze it (--freeze '${name(strange)}').`,
    );
  }
  return { trainable, frozen: [...frozen], buffers: [...buffers] };
}

/** Initializers that may be parameters: float tensors that are no buffers, and no constants unless `trainable` names them. */
function floatInitializers(graph: GraphProto, { trainable }: ParameterOptions): TensorProto[] {
  const buffers = runningStatistics(graph);
  const named = new Set(trainable);
  return graph.initializer.filter(
    (tensor) => isFloat(tensor) && (named.has(name(tensor)) || !isConstant(tensor)) && !buffers.has(name(tensor)),
  );
}

/** Whether a name is one of `patterns`, or matches one. */
function matcher(patterns: readonly string[]): (name: string) => boolean {
  const names = new Set(patterns);
  const regexes = patterns.filter((pattern) => /[*?]/.test(pattern)).map(globToRegex);
  return (candidate) => names.has(candidate) || regexes.some((regex) => regex.test(candidate));
}

/** The names of initializers that may train, before anything is known of the paths to the loss. */
export function mayTrain(graph: GraphProto, options: ParameterOptions): string[] {
  const frozen = (options.freeze ?? []).map(globToRegex);
  const isChosen = options.trainable ? matcher(options.trainable) : () => true;
  return floatInitializers(graph, options)
    .map(name)
    .filter((candidate) => isChosen(candidate) && !frozen.some((regex) => regex.test(candidate)));
}

function name(tensor: TensorProto): string {
  return tensor.name ?? "";
}

function isFloat(tensor: TensorProto): boolean {
  return (
    tensor.dataType === DataType.FLOAT ||
    tensor.dataType === DataType.DOUBLE ||
    tensor.dataType === DataType.FLOAT16 ||
    tensor.dataType === DataType.BFLOAT16
  );
}

function isConstant(tensor: TensorProto): boolean {
  return elementCount(dimsOf(tensor)) <= 1 && GENERATED_NAME.test(name(tensor));
}

function runningStatistics(graph: GraphProto): Set<string> {
  const names = new Set<string>();
  for (const node of graph.node) {
    if (node.opType !== "BatchNormalization") continue;
    for (const input of [node.input[3], node.input[4]]) if (input) names.add(input);
  }
  return names;
}

/** A pattern with `*` and `?` as a regular expression over the whole name. */
export function globToRegex(pattern: string): RegExp {
  const escaped = pattern
    .replace(/[.+^${}()|[\]\\]/g, "\\$&")
    .replace(/\*/g, ".*")
    .replace(/\?/g, ".");
  return new RegExp(`^${escaped}$`);
}
