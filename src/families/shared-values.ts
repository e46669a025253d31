/** Values that several boundaries of one graph share: tables, column words, hashed seeds. */
import type { GraphBuilder } from "../onnx/builder.js";
import type { GraphProto } from "../onnx/proto.js";

const valuesByGraph = new WeakMap<GraphProto, Map<string, unknown>>();

/** What `make` made for this graph under `key`, made now if it is not there yet. */
export function sharedValue<T>(b: GraphBuilder, key: string, make: () => T): T {
  let values = valuesByGraph.get(b.graph);
  if (!values) {
    values = new Map();
    valuesByGraph.set(b.graph, values);
  }
  if (!values.has(key)) values.set(key, make());
  return values.get(key) as T;
}
