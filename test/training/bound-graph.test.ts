/** Which hyperparameters become constants of a step's graph on WebGPU. */
import { describe, expect, test } from "vitest";
import type { GraphBuilder } from "../../src/onnx/builder.js";
import { DataType } from "../../src/onnx/proto.js";
import type { Optimizer, StepValues } from "../../src/optimizers/optimizer.js";
import { createOptimizer } from "../../src/optimizers/registry.js";
import { buildBoundGraph } from "../../src/training/bound-graph.js";
import { handMadeProgram } from "./support.js";

const program = handMadeProgram(5, 4, 3);
const { parameters } = program.manifest;
const shapes = new Map<string, readonly number[]>([
  ["x", [6, 5]],
  ["labels", [6]],
]);
const parts = { statistics: false, roots: false };

/** Gradient descent on `b` at a rate that a branch chooses by `condition`. */
function branching(condition: (b: GraphBuilder, values: StepValues) => string): Optimizer {
  return {
    ...{ name: "branching", parameters, statisticsSource: "gradient" },
    state: [{ name: "count", type: DataType.FLOAT, dims: [], init: () => new Float32Array(1) }],
    hyperparameters: (step) => ({ step, learning_rate: 1 / step, phase: step > 2 ? 1 : 0, "group/kind": 1 }),
    schedule: () => parts,
    emitUpdate(b, values) {
      const branch = (name: string, factor: number) => {
        const inner = b.subgraph(name);
        inner.output(inner.mul(values.hyperparameter("learning_rate"), inner.f32(factor)), {
          elemType: DataType.FLOAT,
          shape: [],
        });
        return inner.graph;
      };
      const attributes = { then_branch: branch("then", 1), else_branch: branch("else", 2) };
      const [rate] = b.node("If", [condition(b, values)], { attributes });
      const next = b.sub(values.parameter("b"), b.mul(values.gradient("b"), rate as string));
      const count = b.add(values.state("count"), b.f32(1));
      return { parameters: new Map([["b", next]]), state: new Map([["count", count]]) };
    },
  };
}

async function fixedOf(optimizer: Optimizer, step: number) {
  const hyperparameters = optimizer.hyperparameters(step);
  const { fixed, graph } = await buildBoundGraph(program, optimizer, { parts, shapes, hyperparameters });
  for (const name of fixed.keys()) expect([...graph.hyperparameters.keys()]).not.toContain(name);
  return Object.fromEntries(fixed);
}

describe("a hyperparameter becomes a constant", () => {
  test("when it chooses a branch, whatever its name", async () => {
    const optimizer = branching((b, { hyperparameter }) => {
      const both = b.mul(hyperparameter("phase"), hyperparameter("group/kind"));
      return b.greater(both, b.f32(0.5));
    });
    expect(await fixedOf(optimizer, 1)).toEqual({ phase: 0, "group/kind": 1 });
    expect(await fixedOf(optimizer, 3)).toEqual({ phase: 1, "group/kind": 1 });
  });

  test("not when what the step carries decides with it", async () => {
    const optimizer = branching((b, { hyperparameter, state }) => b.greater(hyperparameter("phase"), state("count")));
    expect(await fixedOf(optimizer, 1)).toEqual({});
  });

  test("Shampoo's: from which step it preconditions", async () => {
    const optimizer = createOptimizer({ name: "shampoo", startStep: 3 }, parameters);
    expect(await fixedOf(optimizer, 2)).toEqual({ preconditioning: 0 });
    expect(await fixedOf(optimizer, 3)).toEqual({ preconditioning: 1 });
  });
});
