/** The program of a PyTorch export, and its golden inputs as the batch of every step. */
import type { Batch, BatchInput } from "../../src/data/source.js";
import type { DataType } from "../../src/onnx/proto.js";
import type { TensorData } from "../../src/onnx/tensor.js";
import type { TrainingProgram } from "../../src/rewrite/manifest.js";
import { type RewriteOptions, rewrite } from "../../src/rewrite/rewrite.js";
import { wantedInputs } from "../../src/training/inputs.js";
import { goldenLoss, toOrt } from "../support/golden-run.js";
import { loadGolden } from "../support/shared.js";

export interface GoldenBatch {
  readonly program: TrainingProgram;
  readonly inputs: readonly BatchInput[];
  readonly batchSize: number;
  readonly batch: Batch;
  /** Static shapes of the data inputs. */
  readonly shapes: ReadonlyMap<string, readonly number[]>;
}

export async function goldenBatch(name: string, options: RewriteOptions = {}, from = "pytorch"): Promise<GoldenBatch> {
  const golden = loadGolden(name, from);
  const program = await rewrite(golden.model, { loss: goldenLoss(golden), ...options });
  const { tensors } = golden.golden;
  const wanted = wantedInputs(program).map(({ name: input, type }) => {
    const tensor = tensors.get(`input/${input}`) ?? tensors.get("target");
    if (!tensor) throw new Error(`${name} has nothing for '${input}'`);
    return { name: input, type: type as DataType, tensor };
  });
  const batchSize = wanted[0]?.tensor.dims[0] as number;
  return {
    program,
    batchSize,
    inputs: wanted.map(({ name: input, type, tensor }) => ({
      name: input,
      type,
      dims: tensor.dims.slice(1),
    })) as BatchInput[],
    shapes: new Map(wanted.map(({ name: input, tensor }) => [input, tensor.dims])),
    batch: {
      size: batchSize,
      fill(data: ReadonlyMap<string, TensorData>) {
        for (const { name: input, tensor } of wanted)
          (data.get(input) as Float32Array).set(toOrt(tensor).data as Float32Array);
      },
    } as Batch,
  };
}
