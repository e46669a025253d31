/** The steps of every model of graphs/pytorch run on WebGPU without a node on the CPU, and the table knows it. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { createOptimizer } from "../../src/optimizers/registry.js";
import { placementOf } from "../../src/placement/placement.js";
import { BoundSession } from "../../src/runtime/bound-session.js";
import { buildBoundGraph } from "../../src/training/bound-graph.js";
import { buildStepGraph } from "../../src/training/step-graph.js";
import { GRAPHS } from "../support/shared.js";
import { hasWebGpu, WITHOUT } from "./driver.js";
import { goldenBatch } from "./golden-batch.js";

const MODELS = readdirSync(join(GRAPHS, "pytorch")).filter(
  // cnn_opset11 becomes the same program as cnn.
  (name) => !name.includes(".") && name !== "cnn_opset11",
);
/** All parts of a step. */
const PARTS = { statistics: true, roots: true };

/** Operators without a CUDA kernel, by model: they run on the CPU between copies (docs/webgpu.md). */
const CUDA_FALLBACKS: Readonly<Record<string, readonly string[]>> = {
  activations: ["Celu"],
};

/** A loss in the graph is a function of ONNX, whose body compares the labels as int64: they are prepared by the host too. */
const IN_GRAPH: ReadonlySet<string> = new Set(["mlp_loss_in_graph", "mlp_nll_in_graph"]);

describe(`steps of Fishy${WITHOUT}`, () => {
  it.each(MODELS)("%s: every node has a WebGPU kernel by the table, and ONNX Runtime agrees", async (name) => {
    const { program, shapes } = await goldenBatch(name);
    const optimizer = createOptimizer({ name: "fishy" }, program.manifest.parameters);
    const { model, host, misplaced } = await buildBoundGraph(program, optimizer, {
      parts: PARTS,
      shapes,
    });
    expect(misplaced).toEqual([]);
    // The seed's halves, and nothing else, are left to the host.
    const onHost = host?.graph.node.map(({ opType }) => opType).sort();
    if (IN_GRAPH.has(name)) expect(onHost?.length).toBeLessThan(10);
    else expect(onHost).toEqual(["Cast", "Cast", "Cast", "Div", "Sub"]);
    if (!hasWebGpu) return;
    const session = await BoundSession.create(model, { purpose: name, strict: true, locationOf: () => "host" });
    await session.release();
  });

  it.each(MODELS)("%s: every node has a CUDA kernel by the table, but for what is listed", async (name) => {
    const { program, shapes } = await goldenBatch(name);
    const optimizer = createOptimizer({ name: "fishy" }, program.manifest.parameters);
    const { model } = buildStepGraph(program, optimizer, { parts: PARTS, shapes, device: "cuda" });
    const { misplaced } = await placementOf(model, "cuda", [program.manifest.seed]);
    expect([...new Set(misplaced.map(({ what }) => what))].sort()).toEqual(CUDA_FALLBACKS[name] ?? []);
  });
});
