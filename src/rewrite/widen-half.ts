/**
 * float16 and bfloat16 models become float32 ones. What trains becomes float32 itself: steps of 1e-3 of a weight are
 * lost in 11 bits (the master copies of Micikevicius et al., Mixed Precision Training, 2018). Other weights stay as they
 * are in the file, with a Cast behind them. All arithmetic is then float32, so that every gradient is as accurate as that
 * of a float32 model, on every provider. Trained parameters are narrowed again when a model or checkpoint is written.
 */
import { attributesFrom } from "../onnx/attributes.js";
import { cloneMessage } from "../onnx/codec.js";
import { type ExternalSource, readTensor } from "../onnx/external.js";
import { allNames, capturedBy } from "../onnx/graph.js";
import { isHalf, widen } from "../onnx/half.js";
import { mapTensors, tensorsOf } from "../onnx/map-tensors.js";
import { DataType, type GraphProto, type ModelProto, type NodeProto, type TensorProto } from "../onnx/proto.js";
import { dataOf, dimsOf, elementCount, tensorFromData } from "../onnx/tensor.js";

/** Attributes that name an element type. */
const TYPE_ATTRIBUTES = new Set(["to", "dtype", "output_dtype", "output_type", "softmax_precision", "stash_type"]);

/**
 * The model with float32 in place of half precision; the same one when it has none. The source is not changed.
 * @param names initializers that become float32 themselves; others keep their contents.
 * @throws FishyError when the contents of one of them cannot be read.
 */
export async function widenHalf(
  model: ModelProto,
  names: Iterable<string>,
  source: ExternalSource = {},
): Promise<ModelProto> {
  if (!hasHalf(model)) return model;
  const wanted = new Set(names);
  const wide = new Map<string, TensorProto>();
  for (const tensor of model.graph.initializer) {
    const name = tensor.name ?? "";
    if (!wanted.has(name) || !isHalf(tensor.dataType)) continue;
    wide.set(name, widened(tensor, (await readTensor(source, tensor)) as Uint16Array));
  }
  return withFloat32(model, wide);
}

/** The same for initializers whose values are fed, so that their contents do not matter. */
export function widenHalfFed(model: ModelProto, names: Iterable<string>): ModelProto {
  if (!hasHalf(model)) return model;
  const wanted = new Set(names);
  const fed = model.graph.initializer.filter(({ name = "", dataType }) => wanted.has(name) && isHalf(dataType));
  return withFloat32(model, new Map(fed.map((tensor) => [tensor.name ?? "", zerosLike(tensor)])));
}

/** Whether anything in the model is float16 or bfloat16. */
export function hasHalf(model: ModelProto): boolean {
  const { graph } = model;
  return (
    tensorsOf(model).some(({ tensor }) => isHalf(tensor.dataType)) ||
    [...graph.input, ...graph.output].some((info) => isHalf(info.type?.tensorType?.elemType)) ||
    [graph, ...model.functions].some(({ node }) => node.some(makesHalf))
  );
}

function makesHalf(node: NodeProto): boolean {
  return node.attribute.some(
    (attribute) =>
      (TYPE_ATTRIBUTES.has(attribute.name ?? "") && isHalf(Number(attribute.i))) ||
      [...(attribute.g ? [attribute.g] : []), ...(attribute.graphs ?? [])].some((inner) => inner.node.some(makesHalf)),
  );
}

function withFloat32(model: ModelProto, wide: ReadonlyMap<string, TensorProto>): ModelProto {
  const attributes = mapTensors(model, (tensor, role) =>
    role === "attribute" && isHalf(tensor.dataType) ? widened(tensor, dataOf(tensor) as Uint16Array) : tensor,
  );
  const copy = cloneMessage(attributes);
  const taken = allNames(copy.graph);
  convertGraph(copy.graph, wide, taken);
  for (const fn of copy.functions) for (const node of fn.node) convertNode(node, taken);
  return copy;
}

function zerosLike(tensor: TensorProto): TensorProto {
  const dims = dimsOf(tensor);
  return tensorFromData(tensor.name ?? "", DataType.FLOAT, dims, new Float32Array(elementCount(dims)));
}

function widened(tensor: TensorProto, bits: Uint16Array): TensorProto {
  return tensorFromData(tensor.name ?? "", DataType.FLOAT, dimsOf(tensor), widen(tensor.dataType ?? 0, bits));
}

function convertGraph(graph: GraphProto, wide: ReadonlyMap<string, TensorProto>, taken: Set<string>): void {
  const kept = new Map<string, string>();
  graph.initializer = graph.initializer.map((tensor) => {
    const { name = "" } = tensor;
    if (!isHalf(tensor.dataType)) return tensor;
    const own = wide.get(name);
    if (own) return own;
    kept.set(name, freeName(`${name}/float32`, taken));
    return tensor;
  });
  for (const info of [...graph.input, ...graph.output, ...graph.valueInfo]) {
    const type = info.type?.tensorType;
    if (type && isHalf(type.elemType) && !kept.has(info.name ?? "")) type.elemType = DataType.FLOAT;
  }
  for (const node of graph.node) convertNode(node, taken);
  if (kept.size === 0) return;
  rename(graph.node, kept);
  graph.node.unshift(
    ...[...kept].map(([from, to]): NodeProto => {
      const attribute = attributesFrom({ to: DataType.FLOAT });
      return { opType: "Cast", name: to, input: [from], output: [to], attribute };
    }),
  );
}

function convertNode(node: NodeProto, taken: Set<string>): void {
  for (const attribute of node.attribute) {
    if (TYPE_ATTRIBUTES.has(attribute.name ?? "") && isHalf(Number(attribute.i))) attribute.i = DataType.FLOAT;
    for (const inner of [...(attribute.g ? [attribute.g] : []), ...(attribute.graphs ?? [])]) {
      convertGraph(inner, new Map(), taken);
    }
  }
}

/** Renames uses, in subgraphs where they capture the name too. */
function rename(nodes: readonly NodeProto[], names: ReadonlyMap<string, string>): void {
  for (const node of nodes) {
    node.input = node.input.map((name) => names.get(name) ?? name);
    const captured = capturedBy(node);
    const inner = new Map([...names].filter(([name]) => captured.has(name)));
    if (inner.size === 0) continue;
    for (const attribute of node.attribute) {
      for (const graph of [...(attribute.g ? [attribute.g] : []), ...(attribute.graphs ?? [])]) {
        rename(graph.node, inner);
        for (const output of graph.output) output.name = inner.get(output.name ?? "") ?? output.name ?? "";
      }
    }
  }
}

function freeName(wish: string, taken: Set<string>): string {
  let name = wish;
  for (let i = 1; taken.has(name); i++) name = `${wish}_${i}`;
  taken.add(name);
  return name;
}
