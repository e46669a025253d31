/** Losses and gradients of rewritten models against PyTorch's autograd in float64. */
import { describe, expect, it } from "vitest";
import { rewrite } from "../../src/rewrite/rewrite.js";
import { goldenLoss, runGolden } from "../support/golden-run.js";
import { relativeError } from "../support/run.js";
import { loadGolden } from "../support/shared.js";

const MODELS: Record<string, number> = {
  mlp_tanh: 1e-5,
  autoencoder_tanh: 1e-5,
  activations: 1e-5,
  mlp_loss_in_graph: 1e-5,
  mlp_nll_in_graph: 1e-5,
  regression_mse_in_graph: 1e-5,
  cnn: 1e-4,
  cnn_opset11: 1e-4,
  vgg_small: 1e-4,
  resnet_small: 1e-4,
  transformer_encoder: 1e-4,
  gpt_tied: 1e-4,
  mobile_small: 1e-4,
};

describe.each(Object.entries(MODELS))("%s", (name, tolerance) => {
  const golden = loadGolden(name);
  const expected = (key: string) => golden.golden.tensors.get(key)?.data as Float64Array;

  it("has PyTorch's loss, outputs and gradients", async () => {
    const program = await rewrite(golden.model, { loss: goldenLoss(golden) });
    const results = await runGolden(golden, program);
    const loss = expected("loss")[0] as number;
    expect(Math.abs(Number(results.loss?.data[0]) - loss)).toBeLessThan(1e-6 * Math.max(1, Math.abs(loss)));
    const names = [...golden.golden.tensors.keys()].filter((key) => key.startsWith("grad/"));
    expect(program.manifest.parameters.map((parameter) => `grad/${parameter.name}`).sort()).toEqual(names.sort());
    for (const { name: parameter, gradient } of program.manifest.parameters) {
      const error = relativeError(results[gradient]?.data as Float32Array, expected(`grad/${parameter}`));
      expect(error, parameter).toBeLessThan(tolerance);
    }
  });
});
