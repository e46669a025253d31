import { describe, expect, it } from "vitest";
import type { ModelProto } from "../../src/onnx/proto.js";
import { compareWithPyTorch } from "../support/golden-gradients.js";

const asOpset18 = (model: ModelProto): ModelProto => ({ ...model, opsetImport: [{ domain: "", version: 18 }] });

describe("gradients of PyTorch exports", () => {
  it.each([
    "mlp_tanh",
    "autoencoder_tanh",
    "activations",
    "mlp_loss_in_graph",
    "mlp_nll_in_graph",
    "regression_mse_in_graph",
  ])("%s: loss within 1e-6, gradients within 1e-5", async (name) => {
    const { lossError, gradientErrors } = await compareWithPyTorch(name, asOpset18);
    expect(lossError).toBeLessThan(1e-6);
    for (const [parameter, error] of gradientErrors) expect(error, parameter).toBeLessThan(1e-5);
  });
});
