/** The loss, and the accuracy where the labels are classes, of examples that are not trained on. */
import type { Batch, BatchInput } from "../data/source.js";
import { DataType } from "../onnx/proto.js";
import { elementCount, newData, type TensorData } from "../onnx/tensor.js";
import type { TrainingProgram } from "../rewrite/manifest.js";
import { allocateBuffer, type Buffer } from "../runtime/buffers.js";
import { loadRuntime, type Runtime, type Tensor, tensorOver } from "../runtime/ort.js";
import { createSession, type Session } from "../runtime/session.js";
import { buildEvaluationGraph } from "./step-graph.js";
import { stepSeed } from "./stepper.js";

export interface Evaluation {
  /** Mean over the examples. */
  readonly loss: number;
  /** Fraction of labels that the largest output hits. */
  readonly accuracy?: number;
  /** Number of examples. */
  readonly examples: number;
}

export class Evaluator {
  private readonly seed: Tensor;
  private readonly loss: Buffer;
  private readonly hits: Buffer;

  private constructor(
    private readonly ort: Runtime,
    private readonly session: Session,
    private readonly names: { readonly loss: string; readonly hits?: string; readonly seed: string },
    private readonly inputs: readonly BatchInput[],
  ) {
    this.seed = tensorOver(ort, DataType.INT64, [], BigInt64Array.of(stepSeed(0, 0)), "the seed");
    this.loss = allocateBuffer(ort, DataType.FLOAT, [], "the loss");
    this.hits = allocateBuffer(ort, DataType.INT64, [2], "the count of right labels");
  }

  /** @param inputs the data inputs as batches fill them. */
  static async create(
    program: TrainingProgram,
    inputs: readonly BatchInput[],
    options: { readonly threads?: number } = {},
  ): Promise<Evaluator> {
    const { model, hits } = buildEvaluationGraph(program);
    const session = await createSession(model, { purpose: "the evaluation", ...options });
    const { lossOutput, seed } = program.manifest;
    const names = { loss: lossOutput, seed, ...(hits !== undefined && { hits }) };
    return new Evaluator(await loadRuntime(), session, names, inputs);
  }

  /**
   * Means over all examples of `batches`, which may be of any size.
   * @param carried the tensor of a parameter, running statistic or frozen weight.
   */
  async evaluate(batches: Iterable<Batch>, carried: (name: string) => Tensor | undefined): Promise<Evaluation> {
    let examples = 0;
    let lossSum = 0;
    const counts = [0, 0];
    let feeds: Record<string, Tensor> = {};
    let arrays = new Map<string, TensorData>();
    let size = -1;
    const fetches: Record<string, Tensor> = { [this.names.loss]: this.loss.tensor };
    if (this.names.hits !== undefined) fetches[this.names.hits] = this.hits.tensor;
    for (const batch of batches) {
      if (batch.size !== size) ({ feeds, arrays } = this.feedsFor(batch.size, carried));
      size = batch.size;
      batch.fill(arrays);
      await this.session.run(feeds, fetches);
      examples += size;
      lossSum += size * ((this.loss.data as Float32Array)[0] as number);
      for (const i of [0, 1]) counts[i] = (counts[i] as number) + Number(this.hits.data[i]);
    }
    return {
      loss: lossSum / examples,
      ...(this.names.hits !== undefined && { accuracy: (counts[0] as number) / (counts[1] as number) }),
      examples,
    };
  }

  release(): Promise<void> {
    return this.session.release();
  }

  private feedsFor(size: number, carried: (name: string) => Tensor | undefined) {
    const feeds: Record<string, Tensor> = {};
    const arrays = new Map<string, TensorData>();
    for (const name of this.session.inputNames) {
      const input = this.inputs.find((candidate) => candidate.name === name);
      if (input) {
        const dims = [size, ...input.dims];
        const data = newData(input.type, elementCount(dims));
        arrays.set(name, data);
        feeds[name] = tensorOver(this.ort, input.type, dims, data, `input '${name}'`);
      } else {
        const tensor = name === this.names.seed ? this.seed : carried(name);
        if (!tensor) throw new Error(`nothing feeds the input '${name}' of the evaluation`);
        feeds[name] = tensor;
      }
    }
    return { feeds, arrays };
  }
}
