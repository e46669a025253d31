import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { decodeModel } from "../../src/onnx/codec.js";
import { DataType } from "../../src/onnx/proto.js";
import { inferTypes } from "../../src/onnx/types.js";
import { modelOf, newBuilder } from "../support/run.js";
import { GRAPHS } from "../support/shared.js";

describe("types", () => {
  it("tells every value of a transformer", async () => {
    const model = decodeModel(readFileSync(join(GRAPHS, "pytorch", "gpt_tied", "model.onnx")));
    const types = await inferTypes(model);
    for (const node of model.graph.node) for (const output of node.output) expect(types.has(output), output).toBe(true);
    expect(types.get("output")?.shape?.length).toBe(3);
  });

  it("does not take a value that ONNX Runtime infers nothing about for a scalar", async () => {
    const b = newBuilder();
    b.input("x", { elemType: DataType.FLOAT, shape: ["batch", 3, 4, 4] });
    const y = b.op("MeanVarianceNormalization", ["x"]);
    b.output(y, { elemType: DataType.FLOAT, shape: undefined });
    expect((await inferTypes(modelOf(b.graph))).get(y)?.shape).toEqual(["batch", 3, 4, 4]);
  });
});
