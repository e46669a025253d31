/** Replaces tensors anywhere in a model without touching the model that was given. */
import { withFields } from "./codec.js";
import type { AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto } from "./proto.js";

/** Where a tensor stands: the main graph's initializers, those of a subgraph, or a node's attribute. */
export type TensorRole = "initializer" | "subgraph initializer" | "attribute";

export type TensorMap = (tensor: TensorProto, role: TensorRole) => TensorProto;

/** The model with every dense tensor `t` replaced by `map(t)`. Copies only what holds a changed tensor; keeps unknown fields. */
export function mapTensors(model: ModelProto, map: TensorMap): ModelProto {
  const graph = mapGraph(model.graph, map, "initializer");
  const functions = mapList(model.functions, (fn) => mapNodes(fn, map));
  return graph === model.graph && functions === model.functions ? model : withFields(model, { graph, functions });
}

/** Every dense tensor of a model, with where it stands. */
export function tensorsOf(model: ModelProto): { tensor: TensorProto; role: TensorRole }[] {
  const found: { tensor: TensorProto; role: TensorRole }[] = [];
  mapTensors(model, (tensor, role) => {
    found.push({ tensor, role });
    return tensor;
  });
  return found;
}

function mapGraph(graph: GraphProto, map: TensorMap, role: TensorRole): GraphProto {
  const initializer = mapList(graph.initializer, (tensor) => map(tensor, role));
  const mapped = mapNodes(graph, map);
  return initializer === graph.initializer ? mapped : withFields(mapped, { initializer });
}

function mapNodes<T extends GraphProto | FunctionProto>(owner: T, map: TensorMap): T {
  const node = mapList(owner.node, (inner) => mapNode(inner, map));
  return node === owner.node ? owner : withFields(owner, { node } as Partial<T>);
}

function mapNode(node: NodeProto, map: TensorMap): NodeProto {
  const attribute = mapList(node.attribute, (inner) => mapAttribute(inner, map));
  return attribute === node.attribute ? node : withFields(node, { attribute });
}

function mapAttribute(attribute: AttributeProto, map: TensorMap): AttributeProto {
  const changes: Partial<AttributeProto> = {};
  if (attribute.t) changes.t = map(attribute.t, "attribute");
  if (attribute.g) changes.g = mapGraph(attribute.g, map, "subgraph initializer");
  if (attribute.tensors?.length) changes.tensors = mapList(attribute.tensors, (tensor) => map(tensor, "attribute"));
  if (attribute.graphs?.length) {
    changes.graphs = mapList(attribute.graphs, (graph) => mapGraph(graph, map, "subgraph initializer"));
  }
  const changed = Object.entries(changes).some(([key, value]) => attribute[key as keyof AttributeProto] !== value);
  return changed ? withFields(attribute, changes) : attribute;
}

/** Like Array.map, but gives the same array back when nothing changed. */
function mapList<T>(list: T[], map: (item: T) => T): T[] {
  const mapped = list.map(map);
  return mapped.some((item, index) => item !== list[index]) ? mapped : list;
}
