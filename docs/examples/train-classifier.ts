/**
 * A whole program: look at a PyTorch export, train it with Fishy on Fashion-MNIST-like data, and write the trained model.
 *
 *     node --import … docs/examples/train-classifier.ts   (or copy it: only the import of "fishy" matters)
 */
import { type Dataset, exportModel, inspectModel, loadDataset, loadModel, rewrite, train } from "fishy";

export interface Example {
  readonly lossBefore: number;
  readonly lossAfter: number;
  readonly model: string;
}

/**
 * @param modelPath a classifier exported by PyTorch, logits of shape [batch, classes].
 * @param data paths of the dataset, or a dataset in memory.
 * @param folder where the run goes.
 */
export async function trainClassifier(modelPath: string, data: string[], folder: string): Promise<Example> {
  // 1. What is in the model?
  const source = await loadModel(modelPath);
  const description = await inspectModel(source.proto, { loss: "softmax-cross-entropy" });
  for (const layer of description.layers) console.log(`${layer.name}: ${layer.operator}, sampled from ${layer.family}`);

  // 2. The training program: forward, loss, gradients, local sampling and the sampled backward pass in one ONNX graph.
  const program = await rewrite(source.proto, { loss: "softmax-cross-entropy", sections: { kind: "per-layer" } });
  console.log(`${program.manifest.sections.length} sections, ${program.model.graph.node.length} nodes`);

  // 3. Train it. `train` takes the source model as well and rewrites it itself.
  const dataset: Dataset = loadDataset(data);
  console.log(`${dataset.length} examples`);
  const losses: number[] = [];
  await train({
    model: modelPath,
    rewrite: { loss: "softmax-cross-entropy" },
    data,
    optimizer: { name: "fishy", learningRate: 0.01, preconditioner: { rootEvery: 5 } },
    steps: 30,
    batchSize: 32,
    outDir: folder,
    onStep: (record) => losses.push(record.loss),
  });

  // 4. The trained inference model: the source with its parameters replaced.
  const saved = await exportModel(folder, `${folder}/trained.onnx`);
  return { lossBefore: losses[0] as number, lossAfter: losses.at(-1) as number, model: saved.path };
}
