/** Fresh parameters for a model: weights by a scheme and their fans, biases 0, scales 1; nothing else changes. */
import { createHash } from "node:crypto";
import { Random } from "../../data/random.js";
import type { NamedTensor } from "../../data/safetensors.js";
import { FishyError, UsageError } from "../../errors.js";
import { isHalf } from "../../onnx/half.js";
import { DataType, type ModelProto, type TensorProto } from "../../onnx/proto.js";
import { dimsOf, elementCount } from "../../onnx/tensor.js";
import { globToRegex } from "../../rewrite/parameters.js";
import { replaceInitializers } from "../export.js";
import { type Role, rolesOf, type Weight } from "./roles.js";
import { drawElements, drawWeight, needsFans, type Scheme, schemeLabel } from "./schemes.js";

/** Which parameters are initialised, and how. */
export interface InitializeOptions {
  /** For weights that `only` says nothing of. Default glorot-uniform. */
  readonly scheme?: Scheme;
  /**
   * Parameters to initialise, by glob pattern or name, and how; all others stay. The last pattern that fits decides. A
   * scheme is for weights; biases and scales get 0 and 1, unless they are named without a wildcard.
   */
  readonly only?: readonly { readonly pattern: string; readonly scheme?: Scheme }[];
  /** Parameters that stay as they are. */
  readonly keep?: readonly string[];
  /** Default 0. Each parameter has a stream of its own, so that its values do not depend on what else is initialised. */
  readonly seed?: number;
}

/** A parameter and how it was initialised. */
export interface InitializedParameter {
  readonly name: string;
  readonly dims: readonly number[];
  /** Such as `he-normal`, `zeros`. */
  readonly scheme: string;
  readonly fanIn: number | null;
  readonly fanOut: number | null;
}

/** A model with fresh parameters, and which they are. */
export interface Initialized {
  readonly proto: ModelProto;
  readonly parameters: readonly InitializedParameter[];
  /** Float initializers left alone because no operator tells what they are. */
  readonly unknown: readonly string[];
}

const DEFAULT_SCHEME: Scheme = { kind: "glorot", form: "uniform" };

/**
 * Initialises the parameters of a model anew. The model that is given is not changed; external data is not read.
 * @throws FishyError for a pattern that fits nothing, or a tensor whose role does not suit the scheme that it is given.
 */
export function initializeParameters(source: ModelProto, options: InitializeOptions = {}): Initialized {
  const { roles, unknown } = rolesOf(source);
  const tensors = source.graph.initializer.filter(({ name = "" }) => roles.has(name) || unknown.includes(name));
  const names = tensors.map(({ name = "" }) => name);
  const only = options.only?.map((entry) => ({ ...entry, fits: matcher(entry.pattern, names, "--only") }));
  const keeps = (options.keep ?? []).map((pattern) => matcher(pattern, names, "--keep"));
  const values = new Map<string, NamedTensor>();
  const parameters: InitializedParameter[] = [];
  for (const tensor of tensors) {
    const name = tensor.name ?? "";
    const entry = only?.filter(({ fits }) => fits(name)).at(-1);
    if ((only && !entry) || keeps.some((fits) => fits(name))) continue;
    const asked = entry?.scheme ?? options.scheme;
    const isNamed = entry?.scheme !== undefined && entry.pattern === name;
    const role = roles.get(name);
    if (!role && !isNamed) continue;
    const { scheme, weight } = choose(tensor, role, asked ?? DEFAULT_SCHEME, isNamed);
    values.set(name, {
      type: isHalf(tensor.dataType) ? DataType.FLOAT : (tensor.dataType as DataType),
      dims: dimsOf(tensor),
      data: typed(tensor, draw(scheme, weight, elementCount(dimsOf(tensor)), streamOf(options.seed ?? 0, name))),
    });
    const [fanIn, fanOut] = weight && needsFans(scheme) ? [weight.fanIn, weight.fanOut] : [null, null];
    parameters.push({ name, dims: dimsOf(tensor), scheme: schemeLabel(scheme), fanIn, fanOut });
  }
  if (parameters.length === 0) {
    throw new FishyError(
      "There is nothing to initialise: no float initializer is the weight, bias or scale of an operator that fishy knows" +
        `${only ? " and fits --only" : ""}. Name parameters with their scheme: --only NAME=normal:0.02.`,
    );
  }
  const initialised = new Set(parameters.map(({ name }) => name));
  return {
    proto: replaceInitializers(source, values),
    parameters,
    unknown: only ? [] : unknown.filter((name) => !initialised.has(name) && !keeps.some((fits) => fits(name))),
  };
}

function matcher(pattern: string, names: readonly string[], flag: string): (name: string) => boolean {
  const regex = globToRegex(pattern);
  const fits = (name: string) => name === pattern || regex.test(name);
  if (!names.some(fits)) {
    throw new FishyError(`${flag} '${pattern}' fits no parameter. The parameters are: ${names.join(", ")}.`);
  }
  return fits;
}

function choose(
  tensor: TensorProto,
  role: Role | undefined,
  scheme: Scheme,
  isNamed: boolean,
): { scheme: Scheme; weight?: Weight } {
  if (role?.kind === "weight") return { scheme, weight: role };
  if (role && !isNamed) return { scheme: { kind: "constant", value: role.value } };
  if (needsFans(scheme)) {
    throw new UsageError(
      `'${tensor.name}' [${dimsOf(tensor).join(", ")}] is no weight of an operator that fishy knows, so that it has no fans for ${schemeLabel(scheme)}. Use normal:STD, uniform:BOUND, zeros, ones or constant:VALUE.`,
    );
  }
  return { scheme };
}

function draw(scheme: Scheme, weight: Weight | undefined, count: number, random: Random): Float32Array {
  if (weight) return drawWeight(scheme, weight, random);
  return drawElements(scheme as Parameters<typeof drawElements>[0], count, random);
}

/** A generator for one parameter of one seed. */
function streamOf(seed: number, name: string): Random {
  return new Random(createHash("sha256").update(`${seed}/${name}`).digest().readBigUInt64LE());
}

/** Half precision is rounded from float32 when it is written. */
function typed({ dataType }: TensorProto, values: Float32Array): Float32Array | Float64Array {
  return dataType === DataType.DOUBLE ? Float64Array.from(values) : values;
}
