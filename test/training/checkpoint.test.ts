import { cpSync, existsSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { DataType } from "../../src/onnx/proto.js";
import {
  type Checkpoint,
  listCheckpoints,
  loadCheckpoint,
  pruneCheckpoints,
  removeCheckpointsAfter,
  saveCheckpoint,
} from "../../src/training/checkpoint.js";
import { temporaryFolder } from "./support.js";

const folder = temporaryFolder();
const at = (step: number): Checkpoint => ({
  position: { step, epoch: 2, batch: 3, seconds: 4.5 },
  state: {
    model: new Map([["w", { type: DataType.FLOAT, dims: [2, 2], data: Float32Array.of(1, -0, Number.NaN, 1e-40) }]]),
    optimizer: new Map([
      ["w/L", { type: DataType.DOUBLE, dims: [1], data: Float64Array.of(Math.PI) }],
      ["count", { type: DataType.INT64, dims: [], data: BigInt64Array.of(7n) }],
    ]),
  },
});

const FINGERPRINT = { program: "abc", options: { batchSize: "16", "optimizer.name": "adam" } };
const OTHER = { ...FINGERPRINT, program: "def" };

describe("a checkpoint", () => {
  const path = saveCheckpoint(folder, at(12), FINGERPRINT);

  test("reads as it was written, bit for bit", () => {
    const { position, state } = loadCheckpoint(path, FINGERPRINT);
    expect(position).toEqual(at(12).position);
    expect(
      Buffer.from(state.model.get("w")?.data.buffer as ArrayBuffer, state.model.get("w")?.data.byteOffset, 16),
    ).toEqual(Buffer.from(Float32Array.of(1, -0, Number.NaN, 1e-40).buffer));
    expect(state.optimizer.get("w/L")).toEqual(at(12).state.optimizer.get("w/L"));
    expect(state.optimizer.get("count")?.data[0]).toBe(7n);
    expect(readdirSync(folder)).toEqual(["checkpoint-12"]);
  });

  function damaged(change: (copy: string) => void): () => unknown {
    const copy = join(folder, "damaged");
    rmSync(copy, { recursive: true, force: true });
    cpSync(path, copy, { recursive: true });
    change(copy);
    return () => loadCheckpoint(copy, FINGERPRINT);
  }

  test("is refused when a bit is flipped, a file is cut off or missing", () => {
    const flip = (copy: string) => {
      const file = join(copy, "optimizer.safetensors");
      const bytes = readFileSync(file);
      const last = bytes.length - 1;
      bytes[last] = (bytes[last] as number) ^ 1;
      writeFileSync(file, bytes);
    };
    expect(damaged(flip)).toThrow(/damaged: the checksum of its optimizer\.safetensors is wrong/);
    expect(damaged((copy) => truncateSync(join(copy, "model.safetensors"), 40))).toThrow(
      /model\.safetensors has 40 bytes instead/,
    );
    expect(damaged((copy) => rmSync(join(copy, "model.safetensors")))).toThrow(
      /damaged: its model\.safetensors cannot be read/,
    );
    expect(damaged((copy) => rmSync(join(copy, "checkpoint.json")))).toThrow(
      /damaged: its checkpoint\.json cannot be read/,
    );
    expect(damaged((copy) => truncateSync(join(copy, "checkpoint.json"), 20))).toThrow(/damaged: its checkpoint\.json/);
  });

  test("is refused by another program and another version", () => {
    expect(() => loadCheckpoint(path, { ...FINGERPRINT, options: { batchSize: "32" } })).toThrow(
      /differ in batchSize: 16, now 32; optimizer\.name: adam, now not set\. .*--accept-changes/,
    );
    expect(() => loadCheckpoint(path, OTHER)).toThrow(/differ in program: other weights or other nodes/);
    const versioned = damaged((copy) => {
      const file = join(copy, "checkpoint.json");
      writeFileSync(file, readFileSync(file, "utf8").replace('"version": 2', '"version": 99'));
    });
    expect(versioned).toThrow(/has version 99; this fishy reads version 2/);
  });

  test("of an earlier time is replaced; the newest are kept", () => {
    const place = join(folder, "run");
    for (const step of [1, 2, 10]) saveCheckpoint(place, at(step), FINGERPRINT);
    saveCheckpoint(place, at(10), OTHER);
    expect(listCheckpoints(place).map((p) => p.slice(place.length + 1))).toEqual([
      "checkpoint-1",
      "checkpoint-2",
      "checkpoint-10",
    ]);
    expect(() => loadCheckpoint(join(place, "checkpoint-10"), OTHER)).not.toThrow();
    pruneCheckpoints(place, 2);
    expect(readdirSync(place).sort()).toEqual(["checkpoint-10", "checkpoint-2"]);
  });

  test.each([
    // A checkpoint of the step itself need not be there: the run may go on from one that lies elsewhere.
    { step: 3, left: ["checkpoint-1", "checkpoint-2"] },
    { step: 2, left: ["checkpoint-1", "checkpoint-2"] },
    { step: 0, left: [] },
  ])("after step $step goes when a run goes on from there, and no other", ({ step, left }) => {
    const place = join(folder, `after-${step}`);
    for (const saved of [1, 2, 10]) saveCheckpoint(place, at(saved), FINGERPRINT);
    removeCheckpointsAfter(place, step);
    expect(readdirSync(place).sort()).toEqual(left);
  });

  test("that cannot be written says so and leaves nothing behind", () => {
    const place = join(folder, "file");
    writeFileSync(place, "");
    expect(() => saveCheckpoint(place, at(1), FINGERPRINT)).toThrow(/checkpoint-1 cannot be written/);
    expect(existsSync(join(folder, "file", "checkpoint-1"))).toBe(false);
  });
});
