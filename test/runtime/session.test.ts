import { describe, expect, test } from "vitest";
import { emptyGraph, GraphBuilder } from "../../src/onnx/builder.js";
import { DataType } from "../../src/onnx/proto.js";
import { allocateBuffer, DoubleBuffer } from "../../src/runtime/buffers.js";
import { loadRuntime, type Tensor, tensorOver } from "../../src/runtime/ort.js";
import { createSession } from "../../src/runtime/session.js";
import { modelOf } from "../support/run.js";

const ort = await loadRuntime();

/** y = 2·x for x of shape [4]. */
function doubling() {
  const b = new GraphBuilder(emptyGraph("doubling"));
  const x = b.input("x", { elemType: DataType.FLOAT, shape: [4] });
  b.alias(b.mul(x, b.f32(2)), "y");
  b.output("y", { elemType: DataType.FLOAT, shape: [4] });
  return modelOf(b.graph);
}

describe("sessions", () => {
  test("telemetry is off before the runtime loads", () => {
    expect(process.env.ORT_DISABLE_TELEMETRY).toBe("1");
  });

  test("write preallocated outputs in place, step after step, between two buffers", async () => {
    const session = await createSession(doubling());
    const value = new DoubleBuffer(
      ort,
      "x",
      allocateBuffer(ort, DataType.FLOAT, [4], "x", Float32Array.of(1, 2, 3, 4)),
    );
    const arrays = new Set([value.current.data, value.next.data]);
    expect(arrays.size).toBe(2);
    for (let step = 0; step < 5; step++) {
      await session.run({ x: value.current.tensor }, { y: value.next.tensor });
      value.swap();
      expect(arrays.has(value.current.data)).toBe(true);
    }
    expect([...(value.current.data as Float32Array)]).toEqual([32, 64, 96, 128]);
    await session.release();
    await session.release();
  });

  test("a run makes no copy of the outputs that it wrote in place", async () => {
    const count = 1 << 20;
    const b = new GraphBuilder(emptyGraph("negation"));
    b.alias(b.op("Neg", [b.input("x", { elemType: DataType.FLOAT, shape: [count] })]), "y");
    b.output("y", { elemType: DataType.FLOAT, shape: [count] });
    const session = await createSession(modelOf(b.graph));
    expect(session.outputNames).toEqual(["y"]);
    const x = allocateBuffer(ort, DataType.FLOAT, [count], "x", new Float32Array(count).fill(3));
    const y = allocateBuffer(ort, DataType.FLOAT, [count], "y");
    await session.run({ x: x.tensor }, { y: y.tensor });
    (y.data as Float32Array).fill(0);
    const before = process.memoryUsage().arrayBuffers;
    await session.run({ x: x.tensor }, { y: y.tensor });
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(count);
    expect((y.data as Float32Array).every((value) => value === -3)).toBe(true);
    await session.release();
  });

  test("a model that has no sequences, or an output of the marker's name, runs all the same", async () => {
    for (const [opset, name] of [
      [10, "y"],
      [18, "written"],
    ] as const) {
      const b = new GraphBuilder(emptyGraph("negation"));
      b.alias(b.op("Neg", [b.input("x", { elemType: DataType.FLOAT, shape: [2] })]), name);
      b.output(name, { elemType: DataType.FLOAT, shape: [2] });
      const session = await createSession(modelOf(b.graph, opset));
      expect(session.outputNames).toEqual([name]);
      const x = tensorOver(ort, DataType.FLOAT, [2], Float32Array.of(1, -2), "x");
      const y = allocateBuffer(ort, DataType.FLOAT, [2], name);
      await session.run({ x }, { [name]: y.tensor });
      expect([...(y.data as Float32Array)]).toEqual([-1, 2]);
      const fetched = (await session.fetch({ x }, [name]))[name] as Tensor;
      expect([...(fetched.data as Float32Array)]).toEqual([-1, 2]);
      await session.release();
    }
  });

  test("errors say what was being done", async () => {
    const broken = doubling();
    (broken.graph.node[0] as { opType: string }).opType = "NoSuchOperator";
    await expect(createSession(broken, { purpose: "the training step" })).rejects.toThrow(
      /ONNX Runtime cannot load the training step: .*NoSuchOperator/s,
    );
    const session = await createSession(doubling(), { purpose: "the training step" });
    const x = tensorOver(ort, DataType.FLOAT, [3], new Float32Array(3), "x");
    const y = allocateBuffer(ort, DataType.FLOAT, [4], "y").tensor;
    await expect(session.run({ x }, { y })).rejects.toThrow(/failed while running the training step: .*3/s);
    await expect(session.fetch({}, ["y"])).rejects.toThrow(/failed while running the training step/);
    await session.release();
  });

  test("tensors that Node cannot hold, or of the wrong length, are refused by name", () => {
    expect(() => tensorOver(ort, DataType.BFLOAT16, [1], new Uint16Array(1), "input 'x'")).toThrow(
      /input 'x' is of bfloat16/,
    );
    expect(() => tensorOver(ort, DataType.FLOAT, [2, 2], new Float32Array(3), "input 'x'")).toThrow(
      /input 'x': 3 elements do not fill the shape \[2, 2\]/,
    );
  });
});
