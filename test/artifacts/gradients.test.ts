/** The program's loss and gradients against ONNX Runtime's own, from every way of reading a set of artifacts. */
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { type LoadedArtifacts, loadArtifacts } from "../../src/artifacts/load.js";
import { rewrite } from "../../src/rewrite/rewrite.js";
import { toOrt } from "../support/golden-run.js";
import { type Feeds, relativeError, runModel } from "../support/run.js";
import { FIXTURES, folderOf, group, int64Scalar, oracleOf } from "./support.js";
import { withoutDropout } from "./trajectory.js";

const WAYS = {
  "eval model, training model and checkpoint": (folder: string) => loadArtifacts(folder),
  "training model and checkpoint": (folder: string) =>
    loadArtifacts({ training: join(folder, "training_model.onnx"), checkpoint: join(folder, "checkpoint") }),
  "eval model and checkpoint": (folder: string) =>
    loadArtifacts({ eval: join(folder, "eval_model.onnx"), checkpoint: join(folder, "checkpoint") }),
  "training model and the user's own values": async (folder: string) => {
    const { proto } = await loadArtifacts(folder);
    const parameters = new Map(proto.graph.initializer.map((tensor) => [tensor.name ?? "", tensor]));
    return loadArtifacts({ training: join(folder, "training_model.onnx") }, { parameters });
  },
} satisfies Record<string, (folder: string) => Promise<LoadedArtifacts>>;

describe.each(Object.entries(WAYS))("%s", (_, load) => {
  it.each(FIXTURES)("%s: loss and gradients are ONNX Runtime's", async (name) => {
    const oracle = oracleOf(name);
    const artifacts = await load(folderOf(name));
    const expected = group(oracle, "grad");
    expect([...artifacts.trainable].sort()).toEqual([...expected.keys()].sort());
    const program = await rewrite(withoutDropout(artifacts.proto), {
      loss: "in-graph",
      output: artifacts.loss,
      trainable: artifacts.trainable,
      sections: { kind: "none" },
    });
    const feeds: Feeds = { seed: int64Scalar(1) };
    for (const [input, value] of group(oracle, "input")) feeds[input] = toOrt(value);
    const result = await runModel(program.model, feeds);
    expect(relativeError(result.loss?.data as Float32Array, oracle.get("loss")?.data as Float32Array)).toBeLessThan(
      1e-6,
    );
    expect(program.manifest.parameters.map((parameter) => parameter.name).sort()).toEqual([...expected.keys()].sort());
    const largest = Math.max(...[...expected.values()].map(({ data }) => Math.hypot(...(data as Float32Array))));
    for (const [parameter, { data, dims }] of expected) {
      const gradient = result[`${parameter}_grad`];
      expect(gradient?.dims).toEqual(dims);
      const error = relativeError(gradient?.data as Float32Array, data as Float32Array);
      // The gradient of a bias before a BatchNormalization is zero but for rounding.
      const size = Math.hypot(...(data as Float32Array)) / largest;
      expect(size < 1e-6 ? error * size : error, parameter).toBeLessThan(1e-5);
    }
  });
});
