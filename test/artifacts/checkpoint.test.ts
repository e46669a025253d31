/** Reading ONNX Runtime's checkpoints, whole and damaged, and writing them. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readCheckpoint, type TrainingCheckpoint } from "../../src/artifacts/checkpoint.js";
import { decodeFlatCheckpoint } from "../../src/artifacts/checkpoint-flat.js";
import { decodeTensorSequence } from "../../src/artifacts/checkpoint-sequence.js";
import { writeCheckpoint } from "../../src/artifacts/checkpoint-writer.js";
import { FishyError } from "../../src/errors.js";
import { readTensor } from "../../src/onnx/external.js";
import { DataType, type TensorProto } from "../../src/onnx/proto.js";
import { TensorType } from "../../src/onnx/schema.js";
import { bytesPerElement, dataOf, dimsOf, elementCount, tensorFromNumbers } from "../../src/onnx/tensor.js";
import { hasArtifacts, SHARED } from "../support/shared.js";
import { temporaryFolder } from "../support/temporary.js";
import { FIXTURES, folderOf, group, oracleOf } from "./support.js";

/** Every tensor has its name, and as many bytes as its shape asks for. */
function expectWhole(checkpoint: TrainingCheckpoint): void {
  for (const [name, tensor] of [...checkpoint.trainable, ...checkpoint.frozen]) {
    expect(tensor.name).toBe(name);
    if (checkpoint.nominal) continue;
    expect(dataOf(tensor).length).toBe(elementCount(dimsOf(tensor)));
    expect(tensor.rawData?.length).toBe(
      elementCount(dimsOf(tensor)) * (bytesPerElement(tensor.dataType ?? 0) as number),
    );
  }
}

/** The decoder answers with a whole checkpoint or refuses with a FishyError; returns whether it refused. */
function refuses(bytes: Uint8Array): boolean {
  let checkpoint: TrainingCheckpoint;
  try {
    checkpoint = decodeFlatCheckpoint(bytes, "damaged");
  } catch (error) {
    expect(error).toBeInstanceOf(FishyError);
    return true;
  }
  expectWhole(checkpoint);
  return false;
}

describe("checkpoints of onnxruntime-training 1.19.2", () => {
  it.each(FIXTURES)("%s: every parameter has ONNX Runtime's value", async (name) => {
    const oracle = oracleOf(name);
    const checkpoint = await readCheckpoint(join(folderOf(name), "checkpoint"));
    expect(checkpoint).toMatchObject({ format: "flat", version: 2, nominal: false, optimizerGroups: [] });
    const all = new Map([...checkpoint.trainable, ...checkpoint.frozen]);
    const before = group(oracle, "before");
    expect([...all.keys()].sort()).toEqual([...before.keys()].sort());
    expect([...checkpoint.trainable.keys()].sort()).toEqual([...group(oracle, "grad").keys()].sort());
    for (const [parameter, { dims, data }] of before) {
      const tensor = all.get(parameter) as TensorProto;
      expect(dimsOf(tensor)).toEqual(dims);
      expect(dataOf(tensor)).toEqual(data);
    }
  });

  it.each(FIXTURES)("%s: a saved session has its step, properties and moments", async (name) => {
    const oracle = oracleOf(name);
    const checkpoint = await readCheckpoint(join(folderOf(name), "checkpoint_step3"));
    expect(checkpoint.optimizerGroups).toHaveLength(1);
    const [state] = checkpoint.optimizerGroups;
    expect(state).toMatchObject({ name: "group0", step: 3 });
    expect(state?.learningRate).toBeCloseTo(1e-3, 9);
    expect([...(state?.moments.keys() ?? [])].sort()).toEqual([...group(oracle, "grad").keys()].sort());
    expect(checkpoint.properties.get("epoch")).toBe(3n);
    expect(checkpoint.properties.get("note")).toBe("step three");
    expect(checkpoint.properties.get("loss")).toBeCloseTo((oracle.get("losses")?.data[2] as number) ?? 0, 6);
    for (const [parameter, { data }] of group(oracle, "step3")) {
      expect(dataOf(checkpoint.trainable.get(parameter) as TensorProto)).toEqual(data);
    }
    for (const each of state?.moments.values() ?? []) {
      expect([...each.keys()].sort()).toEqual(["momentum0", "momentum1"]);
      expect(Array.from(dataOf(each.get("momentum1") as TensorProto) as Float32Array).every((x) => x >= 0)).toBe(true);
    }
  });
});

describe("damaged checkpoints", () => {
  const bytes = readFileSync(join(folderOf("mlp"), "checkpoint_step3"));

  it("cut off anywhere: refused", () => {
    // The file ends with padding to a multiple of 4, which holds nothing.
    for (let length = 0; length < bytes.length - 3; length++) {
      expect(refuses(bytes.subarray(0, length)), `cut at byte ${length} of ${bytes.length}`).toBe(true);
    }
  });

  it("one bit flipped anywhere: refused, or whole", () => {
    let refused = 0;
    for (let bit = 0; bit < 8 * bytes.length; bit++) {
      const damaged = Uint8Array.from(bytes);
      damaged[bit >> 3] = (damaged[bit >> 3] as number) ^ (1 << (bit & 7));
      if (refuses(damaged)) refused++;
    }
    // Most bytes are values, whose bits nothing guards.
    expect(refused).toBeGreaterThan(1000);
  });

  it("bytes overwritten anywhere: refused, or whole", () => {
    const patch = fc.record({
      at: fc.integer({ min: 0, max: bytes.length - 1 }),
      with: fc.uint8Array({ minLength: 1, maxLength: 16 }),
    });
    fc.assert(
      fc.property(fc.array(patch, { minLength: 1, maxLength: 4 }), (patches) => {
        const damaged = Uint8Array.from(bytes);
        for (const { at, with: values } of patches) damaged.set(values.subarray(0, bytes.length - at), at);
        refuses(damaged);
      }),
      { numRuns: 2000, seed: 1 },
    );
  });

  it("noise behind a right identifier: refused", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 8, maxLength: 400 }), (noise) => {
        noise.set(new TextEncoder().encode("ODTC"), 4);
        refuses(noise);
      }),
      { numRuns: 2000, seed: 2 },
    );
  });

  it("says what is wrong", () => {
    const wrong = Uint8Array.from(bytes);
    wrong.set(new TextEncoder().encode("ORTM"), 4);
    expect(() => decodeFlatCheckpoint(wrong, "a/checkpoint")).toThrow(
      /a\/checkpoint .*identifier is "ORTM" instead of "ODTC"/,
    );
    expect(() => decodeFlatCheckpoint(new Uint8Array(), "empty")).toThrow(
      /empty \(0 bytes\) cannot be read: its header/,
    );
    expect(() => decodeFlatCheckpoint(bytes.subarray(0, 1000), "half")).toThrow(/half \(1000 bytes\).*lies at bytes/);
  });

  it("missing: says so", async () => {
    await expect(readCheckpoint("no/such/checkpoint")).rejects.toThrow(
      /Cannot read the checkpoint no\/such\/checkpoint: there is none/,
    );
  });

  it("optimizer state of another parameter, or of another shape: refused", async () => {
    const folder = temporaryFolder();
    const w = tensorFromNumbers("w", DataType.FLOAT, [2, 3], [1, 2, 3, 4, 5, 6]);
    const write = (parameter: string, dims: number[]) => {
      const moment = tensorFromNumbers("momentum0", DataType.FLOAT, dims, Array(elementCount(dims)).fill(0));
      return writeCheckpoint(join(folder, "checkpoint"), {
        trainable: new Map([["w", w]]),
        frozen: new Map(),
        properties: new Map(),
        optimizerGroups: [
          {
            name: "group0",
            step: 1,
            learningRate: 0.1,
            moments: new Map([[parameter, new Map([["momentum0", moment]])]]),
          },
        ],
      });
    };
    await expect(write("v", [2, 3])).rejects.toThrow(/optimizer state of 'v', which is no trainable parameter/);
    await expect(write("w", [3, 2])).rejects.toThrow(
      /momentum0 of 'w' is float \[3, 2\], and the parameter float \[2, 3\]/,
    );
  });
});

describe("written checkpoints", () => {
  it.each(FIXTURES)("%s: reads back as it was", async (name) => {
    const path = join(temporaryFolder(), "checkpoint");
    const original = await readCheckpoint(join(folderOf(name), "checkpoint_step3"));
    await writeCheckpoint(path, original);
    const copy = await readCheckpoint(path);
    const plain = (checkpoint: TrainingCheckpoint) => ({
      ...checkpoint,
      directory: "",
      trainable: values(checkpoint.trainable),
      frozen: values(checkpoint.frozen),
      optimizerGroups: checkpoint.optimizerGroups.map((each) => ({
        ...each,
        moments: [...each.moments].sort().map(([parameter, moments]) => [parameter, values(moments)]),
      })),
    });
    expect(plain(copy)).toEqual(plain(original));
  });

  it("puts large values beside the file, and checks them when it reads", async () => {
    const path = join(temporaryFolder(), "checkpoint");
    const original = await readCheckpoint(join(folderOf("frozen_backbone"), "checkpoint_step3"));
    await writeCheckpoint(path, original, { maxBytes: 0 });
    const copy = await readCheckpoint(path);
    const classifier = copy.trainable.get("classifier.0.weight") as TensorProto;
    expect(classifier.rawData).toBeUndefined();
    for (const [name, tensor] of [...original.trainable, ...original.frozen]) {
      const found = copy.trainable.get(name) ?? (copy.frozen.get(name) as TensorProto);
      expect(await readTensor(copy, found)).toEqual(dataOf(tensor));
    }
    const data = readFileSync(`${path}.data`);
    writeFileSync(`${path}.data`, data.subarray(0, data.length - 1));
    await expect(readCheckpoint(path)).rejects.toThrow(/of checkpoint\.data, which has/);
    // Small again: the sidecar of before is gone.
    await writeCheckpoint(path, original);
    expect((await readCheckpoint(path)).trainable.get("classifier.0.weight")?.rawData).toBeDefined();
    expect(() => readFileSync(`${path}.data`)).toThrow();
  });

  it("external values without their file: refused", async () => {
    const path = join(temporaryFolder(), "checkpoint");
    await writeCheckpoint(path, await readCheckpoint(join(folderOf("mlp"), "checkpoint")), { maxBytes: 0 });
    writeFileSync(`${path}2`, readFileSync(path));
    await expect(readCheckpoint(`${path}2`)).rejects.toThrow(/checkpoint2\.data, which is not beside it/);
  });
});

describe("folders of .pbseq", () => {
  const tensors = (...list: TensorProto[]) =>
    Buffer.concat([
      varint(list.length),
      ...list.flatMap((each) => {
        const bytes = TensorType.encode(each as object).finish();
        return [varint(bytes.length), bytes];
      }),
    ]);
  const w = tensorFromNumbers("w", DataType.FLOAT, [2, 2], [1, 2, 3, 4]);
  const b = tensorFromNumbers("b", DataType.FLOAT, [2], [5, 6]);

  it("parameters, moments, step and properties", async () => {
    const folder = join(temporaryFolder(), "checkpoint.ckpt");
    mkdirSync(folder);
    writeFileSync(join(folder, "paramtrain_tensors.pbseq"), tensors(w));
    writeFileSync(join(folder, "paramfrozen_tensors.pbseq"), tensors(b));
    writeFileSync(join(folder, "optim_group0_momentum0_tensors.pbseq"), tensors(w));
    writeFileSync(join(folder, "optim_group0_momentum1_tensors.pbseq"), tensors(w));
    writeFileSync(
      join(folder, "optim_group0_properties.pbseq"),
      tensors(
        tensorFromNumbers("builtin.initial_learning_rate", DataType.FLOAT, [], [0.25]),
        tensorFromNumbers("builtin.step", DataType.INT64, [], [7]),
      ),
    );
    writeFileSync(
      join(folder, "custom_properties.pbseq"),
      tensors(tensorFromNumbers("epoch", DataType.INT64, [], [3])),
    );
    const checkpoint = await readCheckpoint(folder);
    expect(checkpoint.format).toBe("sequence");
    expect(Array.from(dataOf(checkpoint.trainable.get("w") as TensorProto) as Float32Array)).toEqual([1, 2, 3, 4]);
    expect([...checkpoint.frozen.keys()]).toEqual(["b"]);
    expect(checkpoint.optimizerGroups[0]).toMatchObject({ name: "group0", step: 7, learningRate: 0.25 });
    expect([...(checkpoint.optimizerGroups[0]?.moments.get("w")?.keys() ?? [])]).toEqual(["momentum0", "momentum1"]);
    expect(checkpoint.properties.get("epoch")).toBe(3n);
  });

  it("cut off anywhere, or with a bit flipped: refused, or whole", () => {
    const bytes = tensors(w, b);
    for (let length = 0; length < bytes.length; length++) {
      expect(() => decodeTensorSequence(bytes.subarray(0, length), "cut"), `${length}`).toThrow(FishyError);
    }
    for (let bit = 0; bit < 8 * bytes.length; bit++) {
      const damaged = Uint8Array.from(bytes);
      damaged[bit >> 3] = (damaged[bit >> 3] as number) ^ (1 << (bit & 7));
      try {
        for (const tensor of decodeTensorSequence(damaged, "flipped").values()) dataOf(tensor);
      } catch (error) {
        expect(error).toBeInstanceOf(FishyError);
      }
    }
  });

  it("a folder of something else: says what is missing", async () => {
    await expect(readCheckpoint(folderOf("mlp"))).rejects.toThrow(/without paramtrain_tensors\.pbseq/);
  });
});

describe.skipIf(!hasArtifacts)("checkpoints found in the wild (shared/artifacts)", () => {
  const at = (...parts: string[]) => join(SHARED, "artifacts", ...parts);

  it.each([
    ["microsoft-onnxruntime-training_api/checkpoint.ckpt", 2, 4, 0],
    ["microsoft-onnxruntime-training_api-history/v1-flatbuffer/checkpoint.ckpt", 1, 4, 0],
    ["microsoft-onnxruntime-training_api/ort_format/checkpoint", 2, 2, 2],
    ["microsoft-onnxruntime-training_api/custom_ops/checkpoint", 2, 2, 0],
    ["Bozu1206-SeizureGuard/training_artifacts/checkpoint", 2, 4, 6],
    ["microsoft-onnxruntime-training_api-history/pre-1.16-directory-format/checkpoint.ckpt", undefined, 4, 0],
    ["microsoft-onnxruntime-training_api-history/pre-1.16-directory-format/load_checkpoint", undefined, 2, 2],
  ] as const)("%s", async (path, version, trainable, frozen) => {
    const checkpoint = await readCheckpoint(at(path));
    expect(checkpoint.version).toBe(version);
    expect([checkpoint.trainable.size, checkpoint.frozen.size]).toEqual([trainable, frozen]);
    expectWhole(checkpoint);
  });

  it("a nominal checkpoint has names alone", async () => {
    const checkpoint = await readCheckpoint(at("microsoft-onnxruntime-training_api/nominal_checkpoint"));
    expect(checkpoint.nominal).toBe(true);
    expect([...checkpoint.trainable.keys()].sort()).toEqual(["fc1.bias", "fc1.weight", "fc2.bias", "fc2.weight"]);
  });

  it("the same parameters in versions 1 and 2", async () => {
    const [one, two] = await Promise.all(
      [
        "microsoft-onnxruntime-training_api-history/v1-flatbuffer/checkpoint.ckpt",
        "microsoft-onnxruntime-training_api/checkpoint.ckpt",
      ].map((path) => readCheckpoint(at(path))),
    );
    expect(values(one?.trainable as never)).toEqual(values(two?.trainable as never));
  });

  it("cut at every 1,000th byte: refused", () => {
    const bytes = readFileSync(at("microsoft-onnxruntime-training_api/checkpoint.ckpt"));
    for (let length = 0; length < bytes.length; length += 1000) expect(refuses(bytes.subarray(0, length))).toBe(true);
  });
});

function values(tensors: ReadonlyMap<string, TensorProto>): [string, number[], unknown][] {
  return [...tensors]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, tensor]) => [name, dimsOf(tensor), dataOf(tensor)]);
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  for (let rest = value; ; rest >>= 7) {
    bytes.push(rest > 127 ? (rest & 127) | 128 : rest);
    if (rest <= 127) return Buffer.from(bytes);
  }
}
