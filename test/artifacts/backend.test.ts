/**
 * ONNX's own backend tests of what concerns training (shared/artifacts/onnx-onnx-backend-tests), read in place: each
 * model is brought to the program's opset, its training operators written out, and run on the inference build.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import * as ort from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { expandTrainingOperators } from "../../src/artifacts/training-operators.js";
import { counterRandom } from "../../src/families/random.js";
import { attributesFrom, float } from "../../src/onnx/attributes.js";
import { valueInfo } from "../../src/onnx/builder.js";
import { decodeModel, decodeTensor } from "../../src/onnx/codec.js";
import { DataType, type ModelProto, type TensorProto } from "../../src/onnx/proto.js";
import { dataOf, dimsOf } from "../../src/onnx/tensor.js";
import { lowerModel } from "../../src/rewrite/lower/lower-model.js";
import { type Feeds, relativeError, runModel } from "../support/run.js";
import { hasArtifacts, SHARED } from "../support/shared.js";

const FOLDER = join(SHARED, "artifacts", "onnx-onnx-backend-tests");

/** Their outputs are NumPy's own random numbers: what must hold is the shape, and that each value is kept or dropped. */
const RANDOM = /^test_training_dropout(?!.*zero_ratio)/;
/** What the rewriter writes out with primitives of its own: run in that form too. */
const LOWERED = /dropout|batchnorm/;

const TYPES: Partial<Record<number, ort.Tensor.Type>> = {
  [DataType.FLOAT]: "float32",
  [DataType.DOUBLE]: "float64",
  [DataType.INT64]: "int64",
  [DataType.INT32]: "int32",
  [DataType.BOOL]: "bool",
};

function tensorAt(path: string): TensorProto {
  return decodeTensor(readFileSync(path));
}

const cases = hasArtifacts
  ? ["node", "simple"].flatMap((kind) =>
      readdirSync(join(FOLDER, kind)).map((name): [string, string] => [name, join(FOLDER, kind, name)]),
    )
  : [];

describe.skipIf(!hasArtifacts)("ONNX's backend tests (shared/artifacts)", () => {
  it("are all there", () => expect(cases).toHaveLength(92));

  for (const [name, folder] of cases) {
    it.each(LOWERED.test(name) ? ["as it is", "lowered"] : ["as it is"])(`${name}, %s`, async (form) => {
      const source = decodeModel(readFileSync(join(folder, "model.onnx")));
      // Its outputs were computed with an epsilon of 0.01, which the model leaves out.
      if (name === "test_adam_multiple")
        source.graph.node[0]?.attribute.push(...attributesFrom({ epsilon: float(0.01) }));
      const model = await expandTrainingOperators(source);
      const data = join(folder, "test_data_set_0");
      const feeds: Feeds = {};
      for (const [i, input] of source.graph.input.entries()) {
        const path = join(data, `input_${i}.pb`);
        if (!existsSync(path)) continue;
        const tensor = tensorAt(path);
        const type = TYPES[tensor.dataType ?? 0] as ort.Tensor.Type;
        feeds[input.name ?? ""] = new ort.Tensor(type, dataOf(tensor) as never, dimsOf(tensor));
      }
      if (form === "lowered") {
        model.graph.input.push(valueInfo("seed", { elemType: DataType.INT64, shape: [] }));
        feeds.seed = new ort.Tensor("int64", BigInt64Array.of(1n), []);
        await lowerModel(model, () => counterRandom("seed", 1), []);
      }
      const result = await runModel(model, feeds);
      if (RANDOM.test(name)) {
        expectDropout(source, feeds, result);
        return;
      }
      for (const [i, output] of source.graph.output.entries()) {
        const expected = tensorAt(join(data, `output_${i}.pb`));
        const found = result[output.name ?? ""];
        expect(found?.dims).toEqual(dimsOf(expected));
        const values = (list: ArrayLike<unknown>) => Array.from(list, Number);
        const error = relativeError(values(found?.data as Float32Array), values(dataOf(expected) as Float32Array));
        expect(error, output.name).toBeLessThan(1e-5);
      }
    });
  }
});

/** Every value is 0 or x/(1 − ratio), as the mask says, and both occur. */
function expectDropout(source: ModelProto, feeds: Feeds, result: Record<string, ort.Tensor>): void {
  const [x, r] = source.graph.input.map((input) => feeds[input.name ?? ""]);
  const [y, mask] = source.graph.output.map((output) => result[output.name ?? ""]);
  const scale = 1 / (1 - Number(r?.data[0] ?? 0.5));
  expect(y?.dims).toEqual(x?.dims);
  if (mask) expect(mask.dims).toEqual(x?.dims);
  const values = x?.data as Float32Array;
  let kept = 0;
  for (const [i, value] of values.entries()) {
    const found = Number(y?.data[i]);
    const isKept = mask ? Boolean(mask.data[i]) : found !== 0;
    expect(found).toBeCloseTo(isKept ? value * scale : 0, 5);
    if (isKept) kept++;
  }
  expect(kept).toBeGreaterThan(0);
  expect(kept).toBeLessThan(values.length);
}
