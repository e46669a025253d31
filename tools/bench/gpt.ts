/** A GPT-2-like transformer as an exporter would write it, its weights in an external file. */
import { float } from "../../src/onnx/attributes.js";
import { emptyGraph, GraphBuilder } from "../../src/onnx/builder.js";
import { DataLocation, DataType, type ModelProto } from "../../src/onnx/proto.js";

/** Width, heads, vocabulary and context of GPT-2 (small): 124 million parameters with 12 layers. */
const [D, HEADS, VOCAB, CONTEXT] = [768, 12, 50257, 1024];

/** The file that the weights are said to lie in. */
export const WEIGHTS_FILE = "weights.bin";

export interface Gpt {
  readonly model: ModelProto;
  /** Of the weights' file. */
  readonly bytes: number;
}

export function gpt(layers: number): Gpt {
  const graph = emptyGraph("gpt");
  const b = new GraphBuilder(graph);
  let bytes = 0;
  const weight = (name: string, dims: readonly number[]) => {
    const length = 4 * dims.reduce((product, dim) => product * dim, 1);
    const place = { location: WEIGHTS_FILE, offset: String(bytes), length: String(length) };
    graph.initializer.push({
      name: b.reserve(name),
      dataType: DataType.FLOAT,
      dims: [...dims],
      dataLocation: DataLocation.EXTERNAL,
      externalData: Object.entries(place).map(([key, value]) => ({ key, value })),
    });
    bytes += length;
    return name;
  };
  const dense = (x: string, name: string, inputs: number, outputs: number) =>
    b.add(b.matMul(x, weight(`${name}.weight`, [inputs, outputs])), weight(`${name}.bias`, [outputs]));
  const norm = (x: string, name: string) =>
    b.op("LayerNormalization", [x, weight(`${name}.weight`, [D]), weight(`${name}.bias`, [D])], {
      axis: -1,
      epsilon: float(1e-5),
    });
  const gelu = (x: string) => {
    const inner = b.mul(b.add(x, b.mul(b.pow(x, b.f32(3)), b.f32(0.044715))), b.f32(Math.sqrt(2 / Math.PI)));
    return b.mul(b.mul(x, b.f32(0.5)), b.add(b.op("Tanh", [inner]), b.f32(1)));
  };
  const block = (x: string, name: string) => {
    const qkv = dense(norm(x, `${name}.ln_1`), `${name}.attn.c_attn`, D, 3 * D);
    const [q, k, v] = b
      .node("Split", [qkv], { outputs: 3, attributes: { axis: 2, num_outputs: 3 } })
      .map((part) => b.reshape(part, [0, 0, HEADS, D / HEADS])) as [string, string, string];
    const scores = b.div(b.matMul(b.transpose(q, [0, 2, 1, 3]), b.transpose(k, [0, 2, 3, 1])), b.f32(8));
    const attention = b.matMul(b.op("Softmax", [scores], { axis: -1 }), b.transpose(v, [0, 2, 1, 3]));
    const joined = b.reshape(b.transpose(attention, [0, 2, 1, 3]), [0, 0, D]);
    const middle = b.add(x, dense(joined, `${name}.attn.c_proj`, D, D));
    const hidden = gelu(dense(norm(middle, `${name}.ln_2`), `${name}.mlp.c_fc`, D, 4 * D));
    return b.add(middle, dense(hidden, `${name}.mlp.c_proj`, 4 * D, D));
  };
  b.input("tokens", { elemType: DataType.INT64, shape: ["batch", CONTEXT] });
  const embedding = weight("wte.weight", [VOCAB, D]);
  let x = b.add(b.gather(embedding, "tokens"), weight("wpe.weight", [CONTEXT, D]));
  for (let layer = 0; layer < layers; layer++) {
    const input = x;
    x = b.scope(`h.${layer}`, () => block(input, `h.${layer}`));
  }
  b.node("MatMul", [norm(x, "ln_f"), b.transpose(embedding, [1, 0])], { outputs: [b.reserve("logits")] });
  b.output("logits", { elemType: DataType.FLOAT, shape: ["batch", CONTEXT, VOCAB] });
  const model: ModelProto = {
    irVersion: 8,
    producerName: "fishy-bench",
    graph,
    opsetImport: [{ domain: "", version: 18 }],
    metadataProps: [],
    trainingInfo: [],
    functions: [],
  };
  return { model, bytes };
}
