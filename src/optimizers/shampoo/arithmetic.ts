/** Shapes, constants and conditions of a stack of matrices in the roots' precision. */
import type { GraphBuilder } from "../../onnx/builder.js";
import { DataType } from "../../onnx/proto.js";

/** Arithmetic on [count, d, d], or on [d, d] without a count, in one precision. */
export class Arithmetic {
  readonly type: DataType;
  readonly double: boolean;

  constructor(
    precision: "float64" | "float32",
    readonly count: number | undefined,
    readonly size: number,
  ) {
    this.double = precision === "float64";
    this.type = this.double ? DataType.DOUBLE : DataType.FLOAT;
  }

  constant(b: GraphBuilder, value: number | readonly number[], dims?: readonly number[]): string {
    return b.constant(this.type, value, dims);
  }
  /** Guards a division. */
  tiny(b: GraphBuilder): string {
    return this.constant(b, this.double ? 1e-300 : 1e-37);
  }
  filled(b: GraphBuilder, value: number): string {
    return this.constant(b, new Array<number>(this.count ?? 1).fill(value), this.scalars.shape);
  }
  /** False for each matrix. */
  never(b: GraphBuilder): string {
    return b.constant(DataType.BOOL, new Array<number>(this.count ?? 1).fill(0), this.scalars.shape);
  }
  private get lead(): number[] {
    return this.count === undefined ? [] : [this.count];
  }
  get matrices() {
    return { elemType: this.type, shape: [...this.lead, this.size, this.size] };
  }
  get vectors() {
    return { elemType: this.type, shape: [...this.lead, 1, this.size] };
  }
  get scalars() {
    return { elemType: this.type, shape: [...this.lead, 1, 1] };
  }
}

/** Whether any of a bool tensor holds: a bool scalar. */
export function any(b: GraphBuilder, bools: string): string {
  const most = b.reduce("ReduceMax", b.cast(bools, DataType.INT32), undefined, false);
  return b.greater(most, b.i32(0));
}
