/**
 * Batch-major recurrences (layout 1) become time-major ones between Transposes. This comes before anything else,
 * because ONNX Runtime loads no recurrent operator of layout 1.
 */
import { attributesFrom, intOf } from "../../onnx/attributes.js";
import { withFields } from "../../onnx/codec.js";
import { takenNames } from "../../onnx/graph.js";
import type { FunctionProto, GraphProto, ModelProto, NodeProto } from "../../onnx/proto.js";
import { isDefaultDomain } from "../../onnx/versions.js";

const RECURRENT: ReadonlySet<string> = new Set(["LSTM", "GRU", "RNN"]);

/** The model with its recurrences time-major; the model itself when they are. */
export function withTimeMajorRecurrences(model: ModelProto): ModelProto {
  const names = takenNames(model.graph);
  const unique = (base: string) => {
    let name = base;
    for (let count = 1; names.has(name); count++) name = `${base}_${count}`;
    names.add(name);
    return name;
  };
  const graph = convertNodes(model.graph, unique);
  const functions = model.functions.map((fn) => convertNodes(fn, unique));
  const changed = graph !== model.graph || functions.some((fn, i) => fn !== model.functions[i]);
  return changed ? withFields(model, { graph, functions }) : model;
}

function convertNodes<T extends GraphProto | FunctionProto>(owner: T, unique: (base: string) => string): T {
  const node = owner.node.flatMap((inner) => convertNode(inner, unique));
  const changed = node.length !== owner.node.length || node.some((inner, i) => inner !== owner.node[i]);
  return changed ? withFields(owner, { node } as Partial<T>) : owner;
}

function convertNode(node: NodeProto, unique: (base: string) => string): NodeProto[] {
  if (node.attribute.some(({ g }) => g)) {
    const attribute = node.attribute.map((inner) =>
      inner.g ? withFields(inner, { g: convertNodes(inner.g, unique) }) : inner,
    );
    return attribute.some((inner, i) => inner.g !== node.attribute[i]?.g) ? [withFields(node, { attribute })] : [node];
  }
  const isRecurrent = isDefaultDomain(node.domain) && RECURRENT.has(node.opType ?? "");
  if (!isRecurrent || intOf(node, "layout", 0) === 0) return [node];
  const made: NodeProto[] = [];
  const transposed = (name: string, perm: number[]) =>
    transpose(made, name, unique(`${name}/time_major`), perm, unique);
  const input = node.input.map((name, i) => (name && [0, 5, 6].includes(i) ? transposed(name, [1, 0, 2]) : name));
  const output = node.output.map((name) => name && unique(`${name}/time_major`));
  made.push(
    withFields(node, { input, output, attribute: node.attribute.filter((attribute) => attribute.name !== "layout") }),
  );
  for (const [i, name] of node.output.entries()) {
    // Y [T, D, B, H] → [B, T, D, H]; the states [D, B, H] → [B, D, H].
    if (name) transpose(made, output[i] as string, name, i === 0 ? [2, 0, 1, 3] : [1, 0, 2], unique);
  }
  return made;
}

function transpose(
  made: NodeProto[],
  from: string,
  to: string,
  perm: number[],
  unique: (base: string) => string,
): string {
  made.push({
    name: unique(`${to}/Transpose`),
    opType: "Transpose",
    input: [from],
    output: [to],
    attribute: attributesFrom({ perm }),
  });
  return to;
}
