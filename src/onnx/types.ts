/**
 * The type and shape of every value, as ONNX Runtime infers them: every value becomes a graph output, the model is
 * loaded once without optimisation, and the session's metadata is read. Dimensions that it loses at a Reshape by a
 * computed shape are found again (`refine-shapes.ts`), and it is asked once more with them as a hint.
 */
import { FishyError, messageOf } from "../errors.js";
import { type Dim, type ValueType, valueInfo } from "./builder.js";
import { cloneModel, encodeModel } from "./codec.js";
import { DataType, type ModelProto, type TensorProto, type ValueInfoProto } from "./proto.js";
import { refineShapes } from "./refine-shapes.js";
import { dimsOf, isExternal, toNumber } from "./tensor.js";

/** Types by value name; values that are no tensors (sequences, maps) are absent. */
export type TypeMap = ReadonlyMap<string, ValueType>;

/** Weights larger than this are declared instead of loaded: only constants that decide shapes have to be there. */
const LARGEST_LOADED_BYTES = 4096;

/** Element types by the names that ONNX Runtime gives them. */
export const TYPE_BY_NAME: Record<string, DataType> = {
  float32: DataType.FLOAT,
  float64: DataType.DOUBLE,
  float16: DataType.FLOAT16,
  bfloat16: DataType.BFLOAT16,
  int8: DataType.INT8,
  int16: DataType.INT16,
  int32: DataType.INT32,
  int64: DataType.INT64,
  uint8: DataType.UINT8,
  uint16: DataType.UINT16,
  uint32: DataType.UINT32,
  uint64: DataType.UINT64,
  bool: DataType.BOOL,
  string: DataType.STRING,
};

/** The declared type of an input, output or value info; undefined when it is no tensor. */
export function declaredType(info: ValueInfoProto): ValueType | undefined {
  const tensor = info.type?.tensorType;
  if (!tensor) return undefined;
  const shape = tensor.shape?.dim.map((dim): Dim => {
    if (dim.dimValue !== undefined && Object.hasOwn(dim, "dimValue")) return toNumber(dim.dimValue);
    return dim.dimParam || null;
  });
  return { elemType: (tensor.elemType ?? DataType.UNDEFINED) as DataType, shape };
}

export function tensorType(tensor: TensorProto): ValueType {
  return { elemType: (tensor.dataType ?? DataType.UNDEFINED) as DataType, shape: dimsOf(tensor) };
}

function isLarge(tensor: TensorProto): boolean {
  return isExternal(tensor) || (tensor.rawData?.length ?? 0) > LARGEST_LOADED_BYTES;
}

/** Rounds of finding lost dimensions and inferring again; every model tried so far needs two at most. */
const MAX_ROUNDS = 4;

export interface InferredTypes {
  readonly types: TypeMap;
  /** Where the types tell more than ONNX Runtime infers by itself: worth writing into the model. */
  readonly found: ShapeMap;
}

/**
 * Infers the type of every value of a model.
 * @param declared shapes that are known from elsewhere, where inference says less.
 * @throws FishyError when ONNX Runtime refuses the model, with its reason.
 */
export async function inferTypesAndFindings(model: ModelProto, declared: ShapeMap = new Map()): Promise<InferredTypes> {
  const found = new Map<string, readonly Dim[]>();
  let types = await inferWith(model, found);
  for (let round = 0; round < MAX_ROUNDS; round++) {
    const refined = refineShapes(model.graph, types, declared);
    if (refined.size === 0) break;
    for (const [name, shape] of refined) found.set(name, shape);
    types = withShapes(types, refined);
    if ([...types.values()].every(({ shape }) => shape && !shape.includes(null))) break;
    types = withShapes(await inferWith(model, found, types), found);
  }
  return { types, found };
}

/** The types alone. @throws as `inferTypesAndFindings` does. */
export async function inferTypes(model: ModelProto, declared: ShapeMap = new Map()): Promise<TypeMap> {
  return (await inferTypesAndFindings(model, declared)).types;
}

export type ShapeMap = ReadonlyMap<string, readonly Dim[]>;

function withShapes(types: TypeMap, shapes: ShapeMap): TypeMap {
  const known = new Map(types);
  for (const [name, shape] of shapes) {
    const type = known.get(name);
    if (type && (type.shape?.includes(null) ?? true)) known.set(name, { ...type, shape });
  }
  return known;
}

/** One inference by ONNX Runtime, which starts from `hints` of the element types in `known`. */
async function inferWith(model: ModelProto, hints: ShapeMap, known: TypeMap = new Map()): Promise<TypeMap> {
  if (hints.size > 0) {
    const infos = [...hints].map(([name, shape]) => valueInfo(name, { ...(known.get(name) as ValueType), shape }));
    const others = model.graph.valueInfo.filter(({ name }) => !hints.has(name ?? ""));
    return infer({ ...model, graph: { ...model.graph, valueInfo: [...others, ...infos] } });
  }
  return infer(model);
}

async function infer(model: ModelProto): Promise<TypeMap> {
  const types = new Map<string, ValueType>();
  for (const tensor of model.graph.initializer) types.set(tensor.name ?? "", tensorType(tensor));
  for (const input of model.graph.input) {
    const type = declaredType(input);
    if (type && !types.has(input.name ?? "")) types.set(input.name ?? "", type);
  }
  for (const [name, type] of await typesOfOutputs(model)) types.set(name, type);
  // ONNX Runtime reports a value of unknown rank like a scalar. The Shape of a scalar has a known length, 0.
  const scalars = [...types].filter(([, { shape }]) => shape?.length === 0).map(([name]) => name);
  if (scalars.length > 0 && mayHideRank(model, types)) {
    const probes = new Map(scalars.map((name, i) => [`fishy_rank_probe_${i}`, name]));
    const probed = await typesOfOutputs(model, probes);
    for (const [probe, name] of probes) {
      if (probed.get(probe)?.shape?.[0] !== 0) {
        types.set(name, { elemType: types.get(name)?.elemType as DataType, shape: undefined });
      }
    }
  }
  return types;
}

/** Operators whose output's rank depends on the values of their further inputs. */
const RANK_BY_INPUT = /^(Reshape|Expand|ConstantOfShape|Squeeze|Unsqueeze|GatherND|Reduce.*)$/;
/** Operators whose output's rank may be unknown whatever they are given. */
const RANK_UNKNOWN = /^(If|Loop|Scan|SequenceAt|OptionalGetElement)$/;
/** Operators that make scalars of other tensors; any other that seems to, ONNX Runtime infers nothing about. */
const MAKES_SCALARS =
  /^(Reduce.*|Gather(ND)?|Squeeze|Reshape|Size|MatMul|Einsum|Det|Arg(Max|Min)|SoftmaxCrossEntropyLoss|NegativeLogLikelihoodLoss)$/;

/** Whether a value that looks like a scalar may be one of unknown rank: an input, or what such an operator makes. */
function mayHideRank(model: ModelProto, types: TypeMap): boolean {
  const { input, node: nodes, initializer } = model.graph;
  if (input.some(({ name }) => types.get(name ?? "")?.shape === undefined)) return true;
  const constants = new Set(initializer.map((tensor) => tensor.name ?? ""));
  for (const node of nodes) if (node.opType === "Constant") for (const name of node.output) constants.add(name);
  return nodes.some((node) => {
    if (node.output.every((name) => types.get(name)?.shape?.length !== 0)) return false;
    const opType = node.opType ?? "";
    if (node.domain || RANK_UNKNOWN.test(opType)) return true;
    if (!MAKES_SCALARS.test(opType) && node.input.some((name) => types.get(name)?.shape?.length)) return true;
    if (opType === "Squeeze" && node.input.length < 2) return true;
    const deciding = opType === "ConstantOfShape" ? node.input : node.input.slice(1);
    return RANK_BY_INPUT.test(opType) && deciding.some((name) => name && !constants.has(name));
  });
}

/** @param probes values whose Shape is wanted, by the name of the probing output. */
async function typesOfOutputs(
  model: ModelProto,
  probes: ReadonlyMap<string, string> = new Map(),
): Promise<Map<string, ValueType>> {
  const types = new Map<string, ValueType>();
  const session = await loadWithAllOutputs(model, probes);
  try {
    for (const output of session.outputMetadata) {
      if (!output.isTensor) continue;
      const elemType = TYPE_BY_NAME[output.type];
      if (elemType === undefined) continue;
      types.set(output.name, { elemType, shape: output.shape.map((dim) => (dim === "" || dim === -1 ? null : dim)) });
    }
  } finally {
    await session.release();
  }
  return types;
}

async function loadWithAllOutputs(model: ModelProto, probes: ReadonlyMap<string, string>) {
  // Weights are dropped before the copy, so that a model of gigabytes costs no more than its graph.
  const { initializer, input } = model.graph;
  const declaredInputs = new Set(input.map((info) => info.name));
  const large = initializer.filter(isLarge);
  const slim = cloneModel({
    ...model,
    graph: {
      ...model.graph,
      initializer: initializer.filter((tensor) => !isLarge(tensor)),
      input: [
        ...input,
        ...large.filter((t) => !declaredInputs.has(t.name)).map((t) => valueInfo(t.name ?? "", tensorType(t))),
      ],
    },
  });
  const { graph } = slim;
  const outputs = new Set(graph.output.map((output) => output.name));
  for (const node of graph.node) {
    for (const name of node.output) {
      if (!name || outputs.has(name)) continue;
      outputs.add(name);
      graph.output.push({ name });
    }
  }
  for (const [probe, name] of probes) {
    graph.node.push({ input: [name], output: [probe], opType: "Shape", attribute: [] });
    graph.output.push({ name: probe });
  }
  process.env.ORT_DISABLE_TELEMETRY ??= "1";
  const ort = await import("onnxruntime-node");
  try {
    return await ort.InferenceSession.create(encodeModel(slim), {
      graphOptimizationLevel: "disabled",
      logSeverityLevel: 3,
      intraOpNumThreads: 1,
    });
  } catch (error) {
    throw new FishyError(`ONNX Runtime refuses the model: ${messageOf(error)}`);
  }
}
