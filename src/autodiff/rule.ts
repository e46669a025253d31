/** What a gradient rule is, and what it is given. */
import { FishyError } from "../errors.js";
import type { Dim, GraphBuilder, ValueType } from "../onnx/builder.js";
import type { DataType, NodeProto, TensorProto } from "../onnx/proto.js";
import { numbersOf } from "../onnx/tensor.js";

/**
 * The gradient of one operator. `gradient` returns a thunk for each differentiable input, by position; the thunk emits
 * nodes and returns the cotangent of that input (of that input's shape). Thunks of inputs that nobody differentiates
 * are never called. An input without a thunk has zero gradient.
 */
export interface GradientRule {
  readonly opType: string;
  /** Operator domain; the default domain when left out. */
  readonly domain?: string;
  /**
   * Positions of float inputs that say how to compute rather than what with (the scales of a Resize): they pass no
   * dependence on, so an initializer there is not taken for a parameter.
   */
  readonly settings?: readonly number[];
  /** What is refused or special, for the table of operators. */
  readonly notes?: string;
  gradient(context: GradientContext): Record<number, () => string>;
}

/** What a rule knows of the graph around its node. */
export interface GradientScope {
  typeOf(name: string): ValueType | undefined;
  constantOf(name: string): TensorProto | undefined;
  producerOf(name: string): NodeProto | undefined;
  needsGradient(name: string): boolean;
}

/** One node to differentiate: its inputs, outputs, cotangents and types, and the builder to emit into. */
export class GradientContext {
  constructor(
    readonly b: GraphBuilder,
    readonly node: NodeProto,
    /** Cotangents by output position; undefined where the loss does not depend on the output. */
    readonly cotangents: readonly (string | undefined)[],
    private readonly scope: GradientScope,
  ) {}

  /** The name of input `i`. */
  input(i: number): string {
    const name = this.node.input[i];
    if (!name) throw this.error(`lacks its input ${i}`);
    return name;
  }

  hasInput(i: number): boolean {
    return Boolean(this.node.input[i]);
  }

  /** The name of output `i` of the forward node. */
  output(i = 0): string {
    const name = this.node.output[i];
    if (!name) throw this.error(`lacks its output ${i}`);
    return name;
  }

  /** The cotangent of output `i`, which the loss depends on. */
  cotangent(i = 0): string {
    const name = this.cotangents[i];
    if (!name) throw this.error(`has no cotangent for its output ${i}`);
    return name;
  }

  /** Whether anybody wants the gradient of input `i`. */
  needs(i: number): boolean {
    const name = this.node.input[i];
    return Boolean(name) && this.scope.needsGradient(name as string);
  }

  /** Type of a forward value. */
  type(name: string): ValueType {
    const type = this.scope.typeOf(name);
    if (!type) throw this.error(`uses '${name}', whose type ONNX Runtime does not tell`);
    return type;
  }

  elemType(name: string): DataType {
    return this.type(name).elemType;
  }

  /** Dimensions of a forward value: numbers, symbols, or null. */
  shape(name: string): readonly Dim[] {
    const { shape } = this.type(name);
    if (!shape) throw this.error(`uses '${name}', whose rank is unknown`);
    return shape;
  }

  rank(name: string): number {
    return this.shape(name).length;
  }

  /** `axis` counted from the front. */
  axis(axis: number, name: string): number {
    return axis < 0 ? axis + this.rank(name) : axis;
  }

  /** The constant behind a value (initializer or Constant node), if it is one. */
  constant(name: string): TensorProto | undefined {
    return this.scope.constantOf(name);
  }

  /** The numbers in a small constant; undefined for anything else. */
  constantOf(name: string): number[] | undefined {
    const tensor = this.constant(name);
    return tensor && numbersOf(tensor);
  }

  /** The numbers in input `i` when it is there and constant: axes, pads and the like. */
  constantNumbers(i: number): number[] | undefined {
    return this.hasInput(i) ? this.constantOf(this.input(i)) : undefined;
  }

  /** The node that makes a forward value. */
  producer(name: string): NodeProto | undefined {
    return this.scope.producerOf(name);
  }

  /** A scalar constant of the element type of `like`. */
  scalar(value: number, like: string): string {
    return this.b.constant(this.elemType(like), value);
  }

  /** An error that names the node. */
  error(problem: string): FishyError {
    return new FishyError(`Node '${this.node.name || this.node.output[0]}' (${this.node.opType}) ${problem}.`);
  }
}

/** Emits at the first call and returns the same value ever after: what several thunks of a rule share. */
export function once<T = string>(emit: () => T): () => T {
  let emitted: { value: T } | undefined;
  return () => {
    emitted ??= { value: emit() };
    return emitted.value;
  };
}
