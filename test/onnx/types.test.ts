import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { decodeModel } from "../../src/onnx/codec.js";
import { inferTypes } from "../../src/onnx/types.js";
import { GRAPHS } from "../support/shared.js";

describe("types", () => {
  it("tells every value of a transformer", async () => {
    const model = decodeModel(readFileSync(join(GRAPHS, "pytorch", "gpt_tied", "model.onnx")));
    const types = await inferTypes(model);
    for (const node of model.graph.node) for (const output of node.output) expect(types.has(output), output).toBe(true);
    expect(types.get("output")?.shape?.length).toBe(3);
  });
});
