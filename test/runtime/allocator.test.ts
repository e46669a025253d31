import { afterEach, describe, expect, it, vi } from "vitest";
import { emptyGraph, GraphBuilder } from "../../src/onnx/builder.js";
import { DataType } from "../../src/onnx/proto.js";
import { ALLOCATOR, keepsFreedMemory } from "../../src/runtime/allocator.js";
import { loadRuntime, tensorOver } from "../../src/runtime/ort.js";
import { createSession } from "../../src/runtime/session.js";

afterEach(() => vi.unstubAllEnvs());

describe("a process whose allocator keeps freed memory", () => {
  it("is one on Linux with the settings of a training process, and no other", () => {
    const isLinux = process.platform === "linux";
    for (const [name, value] of Object.entries(ALLOCATOR)) vi.stubEnv(name, value);
    expect(keepsFreedMemory()).toBe(isLinux);
    vi.stubEnv("MALLOC_MMAP_THRESHOLD_", "131072");
    expect(keepsFreedMemory()).toBe(false);
    vi.stubEnv("MALLOC_MMAP_THRESHOLD_", undefined);
    expect(keepsFreedMemory()).toBe(false);
  });
});

describe("a session without an arena", () => {
  it("computes what one with an arena does, bit for bit", async () => {
    const size = 32;
    const b = new GraphBuilder(emptyGraph("products"));
    const type = { elemType: DataType.FLOAT, shape: [size, size] };
    const x = b.input("x", type);
    b.output(b.alias(b.matMul(b.op("Tanh", [b.matMul(x, x)]), x), "y"), type);
    const model = {
      ...{
        irVersion: 8,
        opsetImport: [{ domain: "", version: 18 }],
        metadataProps: [],
        trainingInfo: [],
        functions: [],
      },
      graph: b.graph,
    };
    const ort = await loadRuntime();
    const data = Float32Array.from({ length: size * size }, (_, i) => Math.sin(i));
    const results = [];
    for (const arena of [true, false]) {
      const session = await createSession(model, { threads: 1, arena });
      const y = new Float32Array(size * size);
      for (let run = 0; run < 3; run++) {
        await session.run(
          { x: tensorOver(ort, DataType.FLOAT, [size, size], data, "x") },
          { y: tensorOver(ort, DataType.FLOAT, [size, size], y, "y") },
        );
      }
      await session.release();
      results.push(y);
    }
    const [withArena, without] = results as [Float32Array, Float32Array];
    expect(withArena.some((value) => value !== 0)).toBe(true);
    expect(without).toEqual(withArena);
  });
});
