import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { decodeModel, encodeModel } from "../../src/onnx/codec.js";
import { inferTypes } from "../../src/onnx/types.js";
import { GRAPHS } from "../support/shared.js";

const folder = join(GRAPHS, "pytorch");
const names = readdirSync(folder).filter((name) => !name.includes("."));

describe("codec", () => {
  it.each(names)("round-trips %s byte for byte", (name) => {
    const bytes = readFileSync(join(folder, name, "model.onnx"));
    expect(Buffer.compare(encodeModel(decodeModel(bytes)), bytes)).toBe(0);
  });
});

describe("types", () => {
  it("tells every value of a transformer", async () => {
    const model = decodeModel(readFileSync(join(folder, "gpt_tied", "model.onnx")));
    const types = await inferTypes(model);
    for (const node of model.graph.node) for (const output of node.output) expect(types.has(output), output).toBe(true);
    expect(types.get("output")?.shape?.length).toBe(3);
  });
});
