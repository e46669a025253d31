/** Emitting on matrices of one row per example, with their shapes declared: inference loses the batch on the way. */
import type { Attributes } from "../../onnx/attributes.js";
import type { Dim, GraphBuilder } from "../../onnx/builder.js";
import type { DataType } from "../../onnx/proto.js";
import type { LoweringContext } from "./lowering.js";

export class Rows {
  readonly b: GraphBuilder;

  constructor(
    private readonly context: LoweringContext,
    readonly batch: Dim,
    readonly elemType: DataType,
  ) {
    this.b = context.b;
  }

  /** States that `value` is [batch, ...dims]. */
  declare(value: string, ...dims: number[]): string {
    this.context.declareShape(value, [this.batch, ...dims]);
    return value;
  }

  /** A node whose output is [batch, width]. */
  op(opType: string, inputs: readonly string[], width: number, attributes: Attributes = {}): string {
    return this.declare(this.b.op(opType, inputs, attributes), width);
  }

  /** Parts of `x` along the columns. */
  split(x: string, widths: readonly number[]): string[] {
    const parts = this.b.node("Split", [x, this.b.i64(widths)], { outputs: widths.length, attributes: { axis: 1 } });
    return parts.map((part, i) => this.declare(part, widths[i] as number));
  }

  /** `count` equal parts of `x` along the columns. */
  splitEvenly(x: string, count: number, width: number): string[] {
    if (count === 1) return [this.declare(x, width)];
    const attributes = { axis: 1, num_outputs: count };
    return this.b.node("Split", [x], { outputs: count, attributes }).map((part) => this.declare(part, width));
  }

  scalar(value: number): string {
    return this.b.constant(this.elemType, value);
  }
}
