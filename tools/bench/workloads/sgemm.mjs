/** The limit: float32 matrix products in ONNX Runtime. `sgemm.mjs THREADS`; a kind of step is a size. */
import * as ort from "onnxruntime-node";
import { emptyGraph, GraphBuilder } from "../../../dist/onnx/builder.js";
import { createSession } from "../../../dist/runtime/session.js";
import { now, serve } from "../peers/protocol.mjs";

const threads = Number(process.argv[2]);
const runs = new Map();
for (const size of [512, 1024, 2048]) {
  const b = new GraphBuilder(emptyGraph("sgemm"));
  const type = { elemType: 1, shape: [size, size] };
  // The sum of rows keeps the copy of the output out of the time.
  b.output(b.reduceSum(b.matMul(b.input("x", type), b.input("y", type)), [0], false), { elemType: 1, shape: [size] });
  const head = { irVersion: 8, opsetImport: [{ domain: "", version: 18 }] };
  const session = await createSession(
    { ...head, graph: b.graph, metadataProps: [], trainingInfo: [], functions: [] },
    { threads },
  );
  const matrix = () => new ort.Tensor("float32", Float32Array.from({ length: size * size }, Math.random), [size, size]);
  const feeds = { x: matrix(), y: matrix() };
  runs.set(size, () => session.fetch(feeds, session.outputNames));
}
serve({ version: "onnxruntime-node", kinds: [...runs.keys()].map(String) }, async (repeat) => {
  const times = {};
  for (const [size, run] of runs) {
    times[size] = [];
    for (let i = 0; i < repeat; i++) {
      const start = now();
      await run();
      times[size].push(now() - start);
    }
  }
  return times;
});
