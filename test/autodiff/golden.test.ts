import { describe, expect, it } from "vitest";
import { counterRandom } from "../../src/families/random.js";
import { valueInfo } from "../../src/onnx/builder.js";
import { DataType, type ModelProto } from "../../src/onnx/proto.js";
import { inferTypes } from "../../src/onnx/types.js";
import { toProgramOpset } from "../../src/onnx/upgrade/upgrade.js";
import { lowerGraph } from "../../src/rewrite/lower/lowering.js";
import { compareWithPyTorch } from "../support/golden-gradients.js";

/** What the rewriter does before differentiation. The golden models drop nothing (p = 0), so the seed is idle. */
async function prepare(source: ModelProto): Promise<ModelProto> {
  const model = await toProgramOpset(source);
  model.graph.input.push(valueInfo("seed", { elemType: DataType.INT64, shape: [] }));
  lowerGraph(model.graph, await inferTypes(model), () => counterRandom("seed", 0));
  model.graph.input.pop();
  model.graph.valueInfo = [];
  return model;
}

describe("gradients of PyTorch exports", () => {
  it.each([
    ["mlp_tanh", 1e-5],
    ["autoencoder_tanh", 1e-5],
    ["activations", 1e-5],
    ["mlp_loss_in_graph", 1e-5],
    ["mlp_nll_in_graph", 1e-5],
    ["regression_mse_in_graph", 1e-5],
    ["cnn", 1e-4],
    ["cnn_opset11", 1e-4],
    ["vgg_small", 1e-4],
    ["resnet_small", 1e-4],
    ["mobile_small", 1e-4],
    ["transformer_encoder", 1e-4],
    ["gpt_tied", 1e-4],
  ])("%s: loss within 1e-6, gradients within %d", async (name, tolerance) => {
    const { lossError, gradientErrors } = await compareWithPyTorch(name, prepare);
    expect(lossError).toBeLessThan(1e-6);
    for (const [parameter, error] of gradientErrors) expect(error, parameter).toBeLessThan(tolerance);
  });
});
