/** Rewritten graphs load and run in other builds of ONNX Runtime: here the WebAssembly one, with the same numbers. */
import * as ortWeb from "onnxruntime-web";
import { beforeAll, expect, it } from "vitest";
import { encodeModel } from "../../src/onnx/codec.js";
import { rewrite } from "../../src/rewrite/rewrite.js";
import { goldenFeeds, goldenLoss, runGolden } from "../support/golden-run.js";
import { relativeError } from "../support/run.js";
import { loadGolden } from "../support/shared.js";

beforeAll(() => {
  ortWeb.env.wasm.numThreads = 1;
  ortWeb.env.logLevel = "error";
});

it.each(["mlp_tanh", "autoencoder_tanh", "activations", "mlp_loss_in_graph", "regression_mse_in_graph"])(
  "%s in onnxruntime-web",
  async (name) => {
    const golden = loadGolden(name);
    const program = await rewrite(golden.model, { loss: goldenLoss(golden) });
    const session = await ortWeb.InferenceSession.create(encodeModel(program.model), {
      executionProviders: ["wasm"],
      logSeverityLevel: 3,
    });
    const feeds = Object.entries(goldenFeeds(golden, program)).map(([input, tensor]) => [
      input,
      new ortWeb.Tensor(tensor.type as "float32", tensor.data as Float32Array, tensor.dims),
    ]);
    const results = await session.run(Object.fromEntries(feeds));
    const native = await runGolden(golden, program);
    // Sampled gradients included: the generator is made of exact integer operators.
    for (const output of Object.keys(native)) {
      const error = relativeError(results[output]?.data as Float32Array, native[output]?.data as Float32Array);
      expect(error, output).toBeLessThan(2e-5);
    }
    await session.release();
  },
);
