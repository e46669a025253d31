/** The loss of examples that are not trained on, and what is counted beside it, as inference would give them. */
import type { Batch, BatchInput } from "../data/source.js";
import { type ExternalSource, readTensor } from "../onnx/external.js";
import { DataType, type ModelProto, type TensorProto } from "../onnx/proto.js";
import { dimsOf, elementCount, newData, type TensorData } from "../onnx/tensor.js";
import { type EvaluationModel, evaluationModel } from "../rewrite/evaluation.js";
import type { JudgementOutputs } from "../rewrite/judgement.js";
import type { TrainingProgram } from "../rewrite/manifest.js";
import { allocateBuffer, type Buffer } from "../runtime/buffers.js";
import type { Device } from "../runtime/devices.js";
import { loadRuntime, type Runtime, type Tensor, tensorOver } from "../runtime/ort.js";
import { createSession, type Session } from "../runtime/session.js";
import { stepSeed } from "./engine.js";
import { carriedNames } from "./inputs.js";
import { buildForwardGraph } from "./step-graph.js";

/** What an evaluation measures. */
export interface Evaluation {
  /** Mean over the examples; over the labels for a loss that averages over them. */
  readonly loss: number;
  /** Fraction of labels that the largest output hits; of examples on the right side for a single logit. */
  readonly accuracy?: number;
  /** Fraction of labels among the five largest outputs, where there are more than five classes. */
  readonly top5?: number;
  /** exp(loss), for cross-entropy over the positions of sequences. */
  readonly perplexity?: number;
  /** Squared error per element between the target and the output (the sigmoid of logits). */
  readonly reconstructionError?: number;
  /** Number of examples. */
  readonly examples: number;
  /** Why the numbers are not those of inference; absent when they are. */
  readonly caveat?: string;
}

const TRAINING_FORWARD =
  "The forward pass is that of training (dropout or batch statistics), because only the training program is known: the numbers are not those of inference. Train or evaluate the source model.";

/** A source model and the folder of its external data. */
export interface LocatedModel extends ExternalSource {
  readonly proto: ModelProto;
}

interface EvaluatorParts extends JudgementOutputs {
  readonly session: Session;
  readonly loss: string;
  /** The program's seed input, where its own forward pass is run. */
  readonly seed?: string;
  readonly inputs: readonly BatchInput[];
  /** Frozen weights in external files. */
  readonly weights: ReadonlyMap<string, Tensor>;
  readonly caveat?: string;
}

export class Evaluator {
  private readonly seed: Tensor;
  private readonly loss: Buffer;
  private readonly counts: Buffer;
  private readonly squaredError: Buffer;

  private constructor(
    private readonly ort: Runtime,
    private readonly parts: EvaluatorParts,
  ) {
    this.seed = tensorOver(ort, DataType.INT64, [], BigInt64Array.of(stepSeed(0, 0)), "the seed");
    this.loss = allocateBuffer(ort, DataType.FLOAT, [], "the loss");
    this.counts = allocateBuffer(ort, DataType.INT64, [3], "the counts of labels");
    this.squaredError = allocateBuffer(ort, DataType.FLOAT, [], "the squared error");
  }

  /**
   * An evaluator of a run: the source model's inference pass where the source is known, otherwise the program's own.
   * @param inputs the data inputs as batches fill them.
   */
  static async create(
    program: TrainingProgram,
    inputs: readonly BatchInput[],
    options: { readonly threads?: number; readonly device?: Device; readonly source?: LocatedModel | undefined } = {},
  ): Promise<Evaluator> {
    const { source, ...session } = options;
    if (source) {
      const { name, value, output = value, target, classAxis } = program.manifest.loss;
      const model = await evaluationModel(source.proto, {
        loss: name,
        fed: carriedNames(program),
        ...(output !== undefined && { output }),
        ...(classAxis !== undefined && { classAxis }),
        ...(target !== undefined && program.manifest.inputs.includes(target) && { targetInput: target }),
      });
      return Evaluator.of(model, source, inputs, session);
    }
    const forward = buildForwardGraph(program);
    const { lossOutput, seed, runningStatistics } = program.manifest;
    const trains = runningStatistics.length > 0 || forward.model.graph.input.some(({ name }) => name === seed);
    return new Evaluator(await loadRuntime(), {
      ...forward,
      session: await createSession(forward.model, { purpose: "the evaluation", ...session }),
      loss: lossOutput,
      seed,
      inputs,
      weights: new Map(),
      ...(trains && { caveat: TRAINING_FORWARD }),
    });
  }

  /** An evaluator of an evaluation model whose weights, but for the fed ones, are its own. */
  static async of(
    evaluation: EvaluationModel,
    source: ExternalSource,
    inputs: readonly BatchInput[],
    options: { readonly threads?: number } = {},
  ): Promise<Evaluator> {
    const ort = await loadRuntime();
    const weights = new Map<string, Tensor>();
    for (const tensor of evaluation.external) weights.set(tensor.name ?? "", await tensorOf(ort, source, tensor));
    const session = await createSession(evaluation.model, { purpose: "the evaluation", ...options });
    return new Evaluator(ort, { ...evaluation, session, inputs, weights });
  }

  /**
   * Means over all examples of `batches`, which may be of any size.
   * @param carried the tensor of a parameter, running statistic or frozen weight.
   */
  async evaluate(
    batches: AsyncIterable<Batch> | Iterable<Batch>,
    carried: (name: string) => Tensor | undefined = () => undefined,
  ): Promise<Evaluation> {
    const { session, counts, squaredError, weighByLabels, isPerplexity, caveat } = this.parts;
    const fetches: Record<string, Tensor> = { [this.parts.loss]: this.loss.tensor };
    if (counts !== undefined) fetches[counts] = this.counts.tensor;
    if (squaredError !== undefined) fetches[squaredError] = this.squaredError.tensor;
    let feeds: Record<string, Tensor> = {};
    let arrays = new Map<string, TensorData>();
    let size = -1;
    let [examples, weights, lossSum, errorSum] = [0, 0, 0, 0];
    let [right, top, labels] = [0, 0, 0];
    for await (const batch of batches) {
      if (batch.size !== size) ({ feeds, arrays } = this.feedsFor(batch.size, carried));
      size = batch.size;
      batch.fill(arrays);
      await session.run(feeds, fetches);
      const [first, five, total] = [...(this.counts.data as BigInt64Array)].map(Number) as [number, number, number];
      const weight = weighByLabels ? total : size;
      examples += size;
      weights += weight;
      // The mean over no labels is NaN.
      if (weight > 0) lossSum += weight * ((this.loss.data as Float32Array)[0] as number);
      errorSum += size * ((this.squaredError.data as Float32Array)[0] as number);
      right += first;
      top += five;
      labels += total;
    }
    const loss = lossSum / weights;
    return {
      loss,
      ...(counts !== undefined && { accuracy: right / labels }),
      ...(counts !== undefined && top >= 0 && { top5: top / labels }),
      ...(isPerplexity && { perplexity: Math.exp(loss) }),
      ...(squaredError !== undefined && { reconstructionError: errorSum / examples }),
      examples,
      ...(caveat !== undefined && { caveat }),
    };
  }

  release(): Promise<void> {
    return this.parts.session.release();
  }

  private feedsFor(size: number, carried: (name: string) => Tensor | undefined) {
    const { session, inputs, weights, seed } = this.parts;
    const feeds: Record<string, Tensor> = {};
    const arrays = new Map<string, TensorData>();
    for (const name of session.inputNames) {
      const input = inputs.find((candidate) => candidate.name === name);
      if (input) {
        const dims = [size, ...input.dims];
        const data = newData(input.type, elementCount(dims));
        arrays.set(name, data);
        feeds[name] = tensorOver(this.ort, input.type, dims, data, `input '${name}'`);
      } else {
        const tensor = name === seed ? this.seed : (carried(name) ?? weights.get(name));
        if (!tensor) throw new Error(`nothing feeds the input '${name}' of the evaluation`);
        feeds[name] = tensor;
      }
    }
    return { feeds, arrays };
  }
}

async function tensorOf(ort: Runtime, source: ExternalSource, tensor: TensorProto): Promise<Tensor> {
  const what = `tensor '${tensor.name}'`;
  return tensorOver(ort, tensor.dataType as DataType, dimsOf(tensor), await readTensor(source, tensor), what);
}
