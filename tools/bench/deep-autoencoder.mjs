/**
 * The deep autoencoder of the Fishy paper, 784-1000-500×8-250-30 and back: 22 dense layers, 6,344,314 parameters. What
 * the paper leaves open is as in the LocoProp notebook (google-research, locoprop_training.ipynb): tanh, a linear code
 * layer, Glorot-uniform weights. Biases are zero. Made here, because its weights are 25 MB.
 */
import { emptyGraph, GraphBuilder } from "../../dist/onnx/builder.js";

const FLOAT = 1;
const CODE = 30;
const ENCODER = [784, 1000, ...Array(8).fill(500), 250, CODE];
export const WIDTHS = [...ENCODER, ...ENCODER.slice(0, -1).reverse()];

/**
 * A source model for `train`: input `image` [batch, 784] in [0, 1], output the logits of the pixels.
 * @param random numbers in [0, 1).
 */
export function deepAutoencoder(random, widths = WIDTHS) {
  const b = new GraphBuilder(emptyGraph("deep_autoencoder"));
  const parameter = (name, dims, values) => b.initializer(name, FLOAT, dims, values);
  b.input("image", { elemType: FLOAT, shape: ["batch", widths[0]] });
  let value = "image";
  for (let i = 0; i + 1 < widths.length; i++) {
    const [fanIn, fanOut] = [widths[i], widths[i + 1]];
    const limit = Math.sqrt(6 / (fanIn + fanOut));
    const weights = Float32Array.from({ length: fanIn * fanOut }, () => limit * (2 * random() - 1));
    const output = b.op("Gemm", [
      value,
      parameter(`layer${i + 1}.weight`, [fanIn, fanOut], weights),
      parameter(`layer${i + 1}.bias`, [fanOut], new Float32Array(fanOut)),
    ]);
    const isLinear = fanOut === CODE || i + 2 === widths.length;
    value = isLinear ? output : b.op("Tanh", [output]);
  }
  b.output(value, { elemType: FLOAT, shape: ["batch", widths.at(-1)] });
  return {
    proto: {
      irVersion: 8,
      producerName: "fishy-bench",
      graph: b.graph,
      opsetImport: [{ domain: "", version: 18 }],
      metadataProps: [],
      trainingInfo: [],
      functions: [],
    },
    directory: ".",
  };
}
