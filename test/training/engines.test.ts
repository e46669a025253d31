/** What all engines do alike. */
import { describe, expect, test } from "vitest";
import { BoundDataset } from "../../src/data/bind.js";
import { createOptimizer } from "../../src/optimizers/registry.js";
import { createEngine, type EngineChoice } from "../../src/training/engines.js";
import { wantedInputs } from "../../src/training/inputs.js";
import { releaseLoaded } from "../../src/training/step-sessions.js";
import { clusters, handMadeProgram } from "./support.js";

process.env.NODE_OPTIONS = `--import ${new URL("../support/register-typescript.mjs", import.meta.url).href}`;

const kinds: [string, Partial<EngineChoice>][] = [
  ["of one step a run", {}],
  ["of several steps a run", { stepsPerRun: 3 }],
  ["of several batches a step", { accumulation: 2 }],
  ["of two devices", { preconditionerDevice: { kind: "cpu", index: 0 } }],
];

describe("an engine", () => {
  test.each(kinds)("%s whose graph does not load tells so, and is released all the same", async (_, choice) => {
    const program = handMadeProgram(5, 4, 3);
    const node = program.model.graph.node.find(({ opType }) => opType === "Tanh");
    (node as { opType: string }).opType = "NoSuchOperator";
    const { inputs } = BoundDataset.bind(clusters(20, 5, 3), wantedInputs(program));
    const optimizer = createOptimizer({ name: "shampoo" }, program.manifest.parameters);
    const options = { program, optimizer, inputs, batchSize: 5, seed: 3, totalSteps: 3, threads: 1 };
    const engine = await createEngine({ ...options, ...choice });
    await expect(engine.prepare(1, 1)).rejects.toThrow(/NoSuchOperator/);
    await engine.release();
  });

  test("releases what was loaded beside what was not", async () => {
    const released: string[] = [];
    const session = (name: string) => ({
      async release() {
        released.push(name);
      },
    });
    const loading = [Promise.reject(new Error("not loaded")), Promise.resolve(["a", "b"]), Promise.resolve(["c"])];
    await releaseLoaded(loading, (names) => [...names.map(session), undefined]);
    expect(released).toEqual(["a", "b", "c"]);
  });
});
