/** `fishy inspect --device`: what would not run on a GPU. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { encodeModel } from "../../src/onnx/codec.js";
import { DataType } from "../../src/onnx/proto.js";
import type { PlacementReport } from "../../src/training/placement-report.js";
import { fishy } from "../support/cli.js";
import { modelOf, newBuilder } from "../support/run.js";
import { GRAPHS } from "../support/shared.js";
import { temporaryFolder } from "../support/temporary.js";

const activations = join(GRAPHS, "pytorch/activations/model.onnx");
const loss = ["--loss", "softmax-cross-entropy"];

/** A transposed convolution in three dimensions after a scale, so that data alone does not decide it. */
function volume(): string {
  const b = newBuilder();
  b.input("x", { elemType: DataType.FLOAT, shape: ["n", 1, "side", 2, 2] });
  b.initializer("scale", DataType.FLOAT, [1, 1, 1, 1, 2], new Float32Array(2).fill(1));
  b.initializer("w", DataType.FLOAT, [1, 3, 2, 2, 2], new Float32Array(24).fill(0.1));
  b.output(b.op("ConvTranspose", [b.mul("x", "scale"), "w"], {}, "grow"), {
    elemType: DataType.FLOAT,
    shape: ["n", 3, null, 3, 3],
  });
  const file = join(temporaryFolder(), "volume.onnx");
  writeFileSync(file, encodeModel(modelOf(b.graph)));
  return file;
}

it("tells what falls back on CUDA, by name, operator and reason", async () => {
  const { code, stdout } = await fishy("inspect", activations, ...loss, "--device", "cuda", "--json");
  expect(code).toBe(0);
  const report = JSON.parse(stdout) as PlacementReport;
  expect(report).toMatchObject({ device: "cuda", optimizer: "fishy" });
  expect(report.misplaced).toEqual([
    { name: "/a.2/Celu", operator: "Celu", verdict: "falls back", what: "Celu", reason: "no kernel" },
  ]);
});

it("says so when every node has a kernel", async () => {
  const { stdout } = await fishy("inspect", activations, ...loss, "--device", "webgpu", "--sections", "none");
  expect(stdout).toMatch(/^A step of shampoo on WebGPU: \d+ nodes\.\nEvery other node has a kernel there\.\n$/);
});

it("tells what would end a run on WebGPU, with the sizes that are given", async () => {
  const file = volume();
  const flags = ["--loss", "mean-squared-error", "--device", "webgpu", "--sections", "none"];
  const { stdout } = await fishy("inspect", file, ...flags, "--size", "side=2");
  expect(stdout).toContain("1 end the run:\n  ConvTranspose  'grow': 1-D and 2-D only");
  const { code, stderr } = await fishy("inspect", file, ...flags, "--size", "height=4");
  expect(code).toBe(2);
  expect(stderr).toContain("No input has the symbolic dimension 'height'. There are: n, side.");
});

it("knows two GPUs", async () => {
  const { code, stderr } = await fishy("inspect", activations, "--device", "tpu");
  expect(code).toBe(2);
  expect(stderr).toContain("Allowed choices are cuda, webgpu");
});
