/** A whole program: look at a PyTorch export, train it with Fishy, and write the trained model. */
import { exportModel, inspectModel, loadDataset, loadModel, rewrite, train } from "fishy";

/**
 * @param modelPath a classifier exported by PyTorch, with logits of shape [batch, classes].
 * @param data paths of the dataset: the model's input and `labels`.
 * @param folder where the run goes.
 * @returns the first and last loss, and the path of the trained model.
 */
export async function trainClassifier(modelPath: string, data: string[], folder: string) {
  // 1. What is in the model?
  const source = await loadModel(modelPath);
  const description = await inspectModel(source.proto, { loss: "softmax-cross-entropy" });
  for (const layer of description.layers) console.log(`${layer.name}: ${layer.operator}, sampled from ${layer.family}`);

  // 2. The training program: forward, loss, gradients, local sampling and the sampled backward pass in one ONNX graph.
  const program = await rewrite(source.proto, { loss: "softmax-cross-entropy", sections: { kind: "per-layer" } });
  console.log(`${program.manifest.sections.length} sections, ${program.model.graph.node.length} nodes`);

  // 3. Train. `train` rewrites a source model itself; a program such as the one above is taken as well.
  console.log(`${(await loadDataset(data)).length} examples`);
  const losses: number[] = [];
  await train({
    model: modelPath,
    rewrite: { loss: "softmax-cross-entropy" },
    data,
    optimizer: { name: "fishy", learningRate: 0.01, rootInterval: 5 },
    steps: 30,
    batchSize: 32,
    outDir: folder,
    onStep: (record) => losses.push(record.loss),
  });

  // 4. The trained inference model: the source with its parameters replaced, nothing else changed.
  const saved = await exportModel(folder, `${folder}/trained.onnx`);
  return { first: losses[0] as number, last: losses.at(-1) as number, model: saved.path };
}
