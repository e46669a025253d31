/** What an evaluation counts beside the loss: hits of class labels, squared errors of values. */
import type { GraphBuilder, ValueType } from "../onnx/builder.js";
import { DataType } from "../onnx/proto.js";

/** What an output is compared with. */
export type Judged =
  | {
      readonly kind: "classes";
      readonly logits: string;
      readonly labels: string;
      readonly axis: number;
      /** Number of classes, where it is known. */
      readonly classes?: number | undefined;
      /** A label that counts neither as right nor as wrong. */
      readonly ignored?: number | undefined;
      /** Whether the loss is the mean over labels that are counted, which makes its exponential the perplexity. */
      readonly isMean: boolean;
      /** Whether there is a label for every position of a sequence. */
      readonly isSequence: boolean;
    }
  | {
      readonly kind: "values";
      readonly output: string;
      readonly target: string;
      /** Whether `output` are logits of probabilities. */
      readonly isLogit: boolean;
      /** Whether there is one yes or no for each example. */
      readonly isBinary: boolean;
    };

/** Outputs of an evaluation graph beside the loss, by what they are. */
export interface JudgementOutputs {
  /** int64 [3]: labels hit by the largest output, by one of the five largest (−1 when not counted), and labels. */
  readonly counts?: string;
  /** Float scalar: the batch's mean squared error per element. */
  readonly squaredError?: string;
  /** Whether the loss is a mean over labels, so that batches weigh by their labels. */
  readonly weighByLabels: boolean;
  /** Whether exp(loss) is a perplexity. */
  readonly isPerplexity: boolean;
}

const TOP = 5;
const COUNTS: ValueType = { elemType: DataType.INT64, shape: [3] };
const SCALAR: ValueType = { elemType: DataType.FLOAT, shape: [] };

/** Emits the outputs. */
export function emitJudgement(b: GraphBuilder, judged: Judged | undefined): JudgementOutputs {
  if (!judged) return { weighByLabels: false, isPerplexity: false };
  return judged.kind === "classes" ? judgeClasses(b, judged) : judgeValues(b, judged);
}

function judgeClasses(b: GraphBuilder, judged: Extract<Judged, { kind: "classes" }>): JudgementOutputs {
  const { logits, axis, classes, ignored, isMean, isSequence } = judged;
  let labels = b.cast(judged.labels, DataType.INT64);
  let total = b.op("Size", [labels]);
  if (ignored !== undefined) {
    const isIgnored = b.equal(labels, b.i64(ignored));
    // No class has the index −1, so that nothing hits it.
    labels = b.where(isIgnored, b.i64(-1), labels);
    total = b.sub(total, sumOf(b, isIgnored));
  }
  const first = sumOf(b, b.equal(b.op("ArgMax", [logits], { axis, keepdims: 0 }), labels));
  let top = b.i64(-1);
  if (classes !== undefined && classes > TOP) {
    const [, indices] = b.node("TopK", [logits, b.i64([TOP])], { outputs: 2, attributes: { axis } }) as [
      string,
      string,
    ];
    top = sumOf(b, b.equal(indices, b.unsqueeze(labels, [axis])));
  }
  const counts = b.concat(
    [first, top, total].map((count) => b.unsqueeze(count, [0])),
    0,
  );
  b.output(counts, COUNTS);
  return { counts, weighByLabels: isMean, isPerplexity: isMean && isSequence };
}

function judgeValues(b: GraphBuilder, judged: Extract<Judged, { kind: "values" }>): JudgementOutputs {
  const { output, target, isLogit, isBinary } = judged;
  const difference = b.sub(isLogit ? b.op("Sigmoid", [output]) : output, target);
  const squaredError = b.reduce("ReduceMean", b.mul(difference, difference), undefined, false);
  b.output(squaredError, SCALAR);
  const none = { weighByLabels: false, isPerplexity: false };
  if (!isLogit || !isBinary) return { squaredError, ...none };
  const right = b.equal(b.greater(output, b.f32(0)), b.greater(target, b.f32(0.5)));
  const counts = b.concat(
    [sumOf(b, right), b.i64(-1), b.op("Size", [right])].map((count) => b.unsqueeze(count, [0])),
    0,
  );
  b.output(counts, COUNTS);
  return { squaredError, counts, ...none };
}

/** How many are true: an int64 scalar. */
function sumOf(b: GraphBuilder, conditions: string): string {
  return b.reduceSum(b.cast(conditions, DataType.INT64), undefined, false);
}
