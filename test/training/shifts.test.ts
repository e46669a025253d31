/** Shifts in place of divisions: the same bits. */
import * as ort from "onnxruntime-node";
import { expect, it } from "vitest";
import { counterRandom } from "../../src/families/random.js";
import { DataType } from "../../src/onnx/proto.js";
import { shiftsForDivisions } from "../../src/training/shifts.js";
import { modelOf, newBuilder, runModel } from "../support/run.js";

it("leaves the generator's numbers as they are, and other graphs alone", async () => {
  const b = newBuilder();
  b.input("seed", { elemType: DataType.INT64, shape: [] });
  const u = counterRandom("seed", 3).uniform(b, b.i64([300, 70]));
  b.output(u, { elemType: DataType.FLOAT, shape: [300, 70] });
  const shifted = { ...b.graph, initializer: [...b.graph.initializer] };
  shiftsForDivisions(shifted);
  const count = (graph: typeof shifted, opType: string) => graph.node.filter((node) => node.opType === opType).length;
  expect(count(shifted, "BitShift")).toBeGreaterThan(2);
  expect(count(b.graph, "BitShift")).toBe(0);
  const feeds = { seed: new ort.Tensor("int64", BigInt64Array.of(77n), []) };
  const [divided, bits] = [await runModel(modelOf(b.graph), feeds), await runModel(modelOf(shifted), feeds)];
  expect(bits[u]?.data).toEqual(divided[u]?.data);
});
