/** Softmax cross-entropy of logits with class indices, averaged over batch and positions. */
import { familyByName } from "../families/registry.js";
import type { GraphBuilder } from "../onnx/builder.js";
import { DataType } from "../onnx/proto.js";
import type { EmittedLoss, Loss, LossInput } from "./loss.js";

/** loss = mean(log Σ_k exp(x_k) − x_label); d loss / d x = (softmax(x) − onehot(label)) / positions. */
export const softmaxCrossEntropy: Loss = {
  name: "softmax-cross-entropy",
  targetName: "labels",
  family: (classAxis) => familyByName("softmax", { axis: classAxis }),
  targetType: (type, classAxis) => ({
    elemType: DataType.INT64,
    shape: type.shape?.filter((_, axis) => axis !== classAxis),
  }),
  emit: emitSoftmaxCrossEntropy,
};

function emitSoftmaxCrossEntropy(b: GraphBuilder, { output, type, target, classAxis }: LossInput): EmittedLoss {
  const axes = [classAxis];
  // Shifting by the maximum keeps exp finite. (LogSoftmax has no WebGPU kernel.)
  const shifted = b.sub(output, b.reduce("ReduceMax", output, axes, true));
  const exponentials = b.exp(shifted);
  const total = b.reduceSum(exponentials, axes, true);
  const oneHot = emitOneHot(b, output, type.shape ?? [], target, classAxis);
  // Only the label's entry of x is not zero after the product, so the sums are exact.
  const picked = b.reduceSum(b.mul(shifted, oneHot), axes, true);
  const perPosition = b.sub(b.log(total), picked);
  const loss = b.reduce("ReduceMean", perPosition, undefined, false);
  const positions = b.cast(b.op("Size", [perPosition]), DataType.FLOAT);
  const activation = b.div(exponentials, total);
  return { loss, cotangent: b.div(b.sub(activation, oneHot), positions), activation };
}

/** onehot(labels) as float32 with the classes on `axis`; a label outside the classes gives a row of zeros. */
function emitOneHot(b: GraphBuilder, logits: string, shape: readonly unknown[], labels: string, axis: number): string {
  const classes = shape[axis];
  const trailing = shape.length - 1 - axis;
  let range: string;
  if (typeof classes === "number") {
    range = b.i32(
      Array.from({ length: classes }, (_, k) => k),
      [classes, ...Array<number>(trailing).fill(1)],
    );
  } else {
    const count = b.squeeze(b.op("Shape", [logits], { start: axis, end: axis + 1 }), [0]);
    const flat = b.op("Range", [b.i32(0), b.cast(count, DataType.INT32), b.i32(1)]);
    range = b.reshape(flat, [-1, ...Array<number>(trailing).fill(1)]);
  }
  const indices = b.unsqueeze(b.cast(labels, DataType.INT32), [axis]);
  return b.cast(b.equal(indices, range), DataType.FLOAT);
}
