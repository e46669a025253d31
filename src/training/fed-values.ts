/** What a step is fed beside the state: a batch, the seed and the hyperparameters, in buffers that stay. */
import type { Batch } from "../data/source.js";
import { FishyError } from "../errors.js";
import { DataType } from "../onnx/proto.js";
import type { TensorData } from "../onnx/tensor.js";
import { allocateBuffer, type Buffer } from "../runtime/buffers.js";
import type { Runtime, Tensor } from "../runtime/ort.js";
import { checkBatch, type EngineOptions, stepSeed } from "./engine.js";

export class FedValues {
  /** What batches fill, by data input. */
  readonly batchData: ReadonlyMap<string, TensorData>;
  private readonly inputs = new Map<string, Buffer>();
  private readonly seed: Buffer;
  private readonly hyperparameters = new Map<string, Buffer>();

  constructor(
    ort: Runtime,
    private readonly options: EngineOptions,
  ) {
    const { inputs, batchSize, program, optimizer } = options;
    for (const { name, type, dims } of inputs) {
      this.inputs.set(name, allocateBuffer(ort, type, [batchSize, ...dims], `input '${name}'`));
    }
    this.batchData = new Map([...this.inputs].map(([name, { data }]) => [name, data]));
    this.seed = allocateBuffer(ort, DataType.INT64, [], "the seed");
    this.inputs.set(program.manifest.seed, this.seed);
    for (const name of Object.keys(optimizer.hyperparameters(1))) {
      this.hyperparameters.set(name, allocateBuffer(ort, DataType.FLOAT, [], `hyperparameter '${name}'`));
    }
  }

  fill(batch: Batch): void {
    checkBatch(batch, this.options);
    batch.fill(this.batchData);
  }

  /** Sets the seed and the hyperparameters to those of a step, the seed to that of one of its batches. */
  setStep(step: number, part?: number): void {
    const { optimizer, seed } = this.options;
    (this.seed.data as BigInt64Array)[0] = stepSeed(seed, step, part);
    for (const [name, value] of Object.entries(optimizer.hyperparameters(step))) {
      (this.hyperparameter(name).data as Float32Array)[0] = value;
    }
  }

  /** A data input or the seed; undefined for other inputs. */
  input(name: string): Tensor | undefined {
    return this.inputs.get(name)?.tensor;
  }

  hyperparameter(name: string): Buffer {
    const buffer = this.hyperparameters.get(name);
    if (!buffer) throw new Error(`the optimizer has no hyperparameter '${name}' at the first step`);
    return buffer;
  }
}

/** @throws FishyError for an input of the program that nothing feeds. */
export function requireFed(tensor: Tensor | undefined, name: string): Tensor {
  if (!tensor) throw new FishyError(`Nothing feeds the program's input '${name}'.`);
  return tensor;
}
