/** Appends nodes to a graph: one method per operator, unique and readable names, shared constants. */
import { type Attributes, attributesFrom, float } from "./attributes.js";
import { takenNames } from "./graph.js";
import { DataType, type GraphProto, type NodeProto, type ValueInfoProto } from "./proto.js";
import { type TensorData, tensorFromData, tensorFromNumbers } from "./tensor.js";

/** A dimension: a number, a symbol such as `batch`, or null when nothing is known. */
export type Dim = number | string | null;

export interface ValueType {
  /** TensorProto.DataType. */
  readonly elemType: DataType;
  /** Undefined when not even the rank is known. */
  readonly shape: readonly Dim[] | undefined;
}

export function valueInfo(name: string, type: ValueType): ValueInfoProto {
  return {
    name,
    type: {
      tensorType: {
        elemType: type.elemType,
        ...(type.shape && {
          shape: {
            dim: type.shape.map((dim) =>
              typeof dim === "number" ? { dimValue: dim } : dim === null ? {} : { dimParam: dim },
            ),
          },
        }),
      },
    },
  };
}

export function emptyGraph(name: string): GraphProto {
  return { name, node: [], initializer: [], input: [], output: [], valueInfo: [] };
}

export interface NodeOptions {
  /** How many outputs to make, or their names. Default 1. */
  outputs?: number | readonly string[];
  attributes?: Attributes;
  domain?: string;
  /** What to call the node and its outputs; the operator's name otherwise. */
  name?: string;
}

interface Shared {
  readonly names: Set<string>;
  readonly counters: Map<string, number>;
}

/**
 * Builds nodes of opset 18 into `graph`. Every method takes value names and returns the name of its (first) output.
 * Operators keep ONNX's argument order. Names are unique over the graph and all its subgraphs.
 */
export class GraphBuilder {
  private scopes: string[] = [];
  private readonly constants = new Map<string, string>();

  constructor(
    readonly graph: GraphProto,
    private readonly shared: Shared = { names: takenNames(graph), counters: new Map() },
  ) {}

  /** A builder for the body of an If, Loop or Scan: its own graph, names unique across both. Captures outer values by name. */
  subgraph(name: string): GraphBuilder {
    const inner = new GraphBuilder(emptyGraph(this.unique(name)), this.shared);
    inner.scopes = [...this.scopes];
    return inner;
  }

  /** Runs `build` with `name/` before the names of everything that it makes. */
  scope<T>(name: string, build: () => T): T {
    this.scopes.push(name);
    try {
      return build();
    } finally {
      this.scopes.pop();
    }
  }

  /** A name that nothing in the model has yet; `hint` itself, within the current scope, when it is free. */
  unique(hint: string): string {
    const base = [...this.scopes, hint].join("/");
    let name = base;
    let count = this.shared.counters.get(base) ?? 0;
    while (this.shared.names.has(name)) name = `${base}_${++count}`;
    this.shared.counters.set(base, count);
    this.shared.names.add(name);
    return name;
  }

  /** Whether a value or node of the model, subgraphs included, has the name. */
  isTaken(name: string): boolean {
    return this.shared.names.has(name);
  }

  /** Takes a name as it stands, for inputs, outputs and parameters whose names are a contract. */
  reserve(name: string): string {
    if (this.shared.names.has(name)) throw new Error(`the name '${name}' is already used in the graph`);
    this.shared.names.add(name);
    return name;
  }

  /** Appends a node and returns the names of its outputs. An empty input name stands for an omitted input. */
  node(opType: string, inputs: readonly string[], options: NodeOptions = {}): string[] {
    const hint = options.name ?? opType;
    const outputs =
      typeof options.outputs === "object"
        ? options.outputs.map((name) => {
            if (name) this.shared.names.add(name);
            return name;
          })
        : Array.from({ length: options.outputs ?? 1 }, () => this.unique(hint));
    const node: NodeProto = {
      input: [...inputs],
      output: [...outputs],
      name: outputs.find(Boolean) ?? hint,
      opType,
      attribute: attributesFrom(options.attributes ?? {}),
      ...(options.domain && { domain: options.domain }),
    };
    this.graph.node.push(node);
    return [...outputs];
  }

  /** Appends a node with one output and returns its name. */
  op(opType: string, inputs: readonly string[], attributes: Attributes = {}, name?: string): string {
    return this.node(opType, inputs, { attributes, ...(name && { name }) })[0] as string;
  }

  /** Gives `value` the exact name `name` (an Identity). */
  alias(value: string, name: string): string {
    return this.node("Identity", [value], { outputs: [this.reserve(name)] })[0] as string;
  }

  input(name: string, type: ValueType): string {
    this.graph.input.push(valueInfo(this.reserve(name), type));
    return name;
  }

  /** Declares an existing value as an output of the graph. */
  output(name: string, type: ValueType): void {
    this.graph.output.push(valueInfo(name, type));
  }

  // Constants.

  initializer(name: string, type: DataType, dims: readonly number[], data: TensorData): string {
    const unique = this.unique(name);
    this.graph.initializer.push(tensorFromData(unique, type, dims, data));
    return unique;
  }

  /** A small constant; equal constants are shared. A number makes a scalar, an array a vector unless `dims` says otherwise. */
  constant(type: DataType, value: number | readonly number[], dims?: readonly number[]): string {
    const values = typeof value === "number" ? [value] : value;
    const shape = dims ?? (typeof value === "number" ? [] : [values.length]);
    const key = `${type}:${shape.join(",")}:${values.map((v) => (Object.is(v, -0) ? "-0" : v)).join(",")}`;
    const known = this.constants.get(key);
    if (known) return known;
    const scopes = this.scopes;
    this.scopes = [];
    const name = this.unique("const");
    this.scopes = scopes;
    this.graph.initializer.push(tensorFromNumbers(name, type, shape, values));
    this.constants.set(key, name);
    return name;
  }

  f32(value: number | readonly number[], dims?: readonly number[]): string {
    return this.constant(DataType.FLOAT, value, dims);
  }
  f64(value: number | readonly number[], dims?: readonly number[]): string {
    return this.constant(DataType.DOUBLE, value, dims);
  }
  i64(value: number | readonly number[], dims?: readonly number[]): string {
    return this.constant(DataType.INT64, value, dims);
  }
  i32(value: number | readonly number[], dims?: readonly number[]): string {
    return this.constant(DataType.INT32, value, dims);
  }
  u32(value: number | readonly number[], dims?: readonly number[]): string {
    return this.constant(DataType.UINT32, value, dims);
  }

  // Elementwise, with broadcasting.

  add(a: string, b: string): string {
    return this.op("Add", [a, b]);
  }
  sub(a: string, b: string): string {
    return this.op("Sub", [a, b]);
  }
  mul(a: string, b: string): string {
    return this.op("Mul", [a, b]);
  }
  div(a: string, b: string): string {
    return this.op("Div", [a, b]);
  }
  neg(x: string): string {
    return this.op("Neg", [x]);
  }
  abs(x: string): string {
    return this.op("Abs", [x]);
  }
  exp(x: string): string {
    return this.op("Exp", [x]);
  }
  log(x: string): string {
    return this.op("Log", [x]);
  }
  sqrt(x: string): string {
    return this.op("Sqrt", [x]);
  }
  pow(x: string, exponent: string): string {
    return this.op("Pow", [x, exponent]);
  }
  max(a: string, b: string): string {
    return this.op("Max", [a, b]);
  }
  min(a: string, b: string): string {
    return this.op("Min", [a, b]);
  }
  equal(a: string, b: string): string {
    return this.op("Equal", [a, b]);
  }
  less(a: string, b: string): string {
    return this.op("Less", [a, b]);
  }
  greater(a: string, b: string): string {
    return this.op("Greater", [a, b]);
  }
  where(condition: string, a: string, b: string): string {
    return this.op("Where", [condition, a, b]);
  }
  cast(x: string, to: DataType): string {
    return this.op("Cast", [x], { to });
  }

  // Linear algebra and reductions.

  matMul(a: string, b: string): string {
    return this.op("MatMul", [a, b]);
  }
  /** alpha · op(a) · op(b) + beta · c on matrices. */
  gemm(
    a: string,
    b: string,
    options: { c?: string; transA?: boolean; transB?: boolean; alpha?: number; beta?: number } = {},
  ): string {
    return this.op("Gemm", options.c ? [a, b, options.c] : [a, b], {
      transA: options.transA ? 1 : undefined,
      transB: options.transB ? 1 : undefined,
      alpha: options.alpha === undefined ? undefined : float(options.alpha),
      beta: options.beta === undefined ? undefined : float(options.beta),
    });
  }
  /** Sums over `axes`; over all of them when undefined. */
  reduceSum(x: string, axes: readonly number[] | string | undefined, keepDims: boolean): string {
    return this.reduce("ReduceSum", x, axes, keepDims);
  }
  /** Any Reduce* operator of opset 18, where axes are an input. */
  reduce(opType: string, x: string, axes: readonly number[] | string | undefined, keepDims: boolean): string {
    const axesInput = axes === undefined ? [] : [typeof axes === "string" ? axes : this.i64(axes)];
    return this.op(opType, [x, ...axesInput], { keepdims: keepDims ? 1 : 0 });
  }

  // Shapes and movement.

  shape(x: string): string {
    return this.op("Shape", [x]);
  }
  reshape(x: string, shape: readonly number[] | string): string {
    return this.op("Reshape", [x, typeof shape === "string" ? shape : this.i64(shape)]);
  }
  transpose(x: string, perm: readonly number[]): string {
    return this.op("Transpose", [x], { perm });
  }
  squeeze(x: string, axes: readonly number[] | string): string {
    return this.op("Squeeze", [x, typeof axes === "string" ? axes : this.i64(axes)]);
  }
  unsqueeze(x: string, axes: readonly number[] | string): string {
    return this.op("Unsqueeze", [x, typeof axes === "string" ? axes : this.i64(axes)]);
  }
  expand(x: string, shape: readonly number[] | string): string {
    return this.op("Expand", [x, typeof shape === "string" ? shape : this.i64(shape)]);
  }
  concat(inputs: readonly string[], axis: number): string {
    return inputs.length === 1 ? (inputs[0] as string) : this.op("Concat", inputs, { axis });
  }
  gather(data: string, indices: string, axis = 0): string {
    return this.op("Gather", [data, indices], { axis });
  }
  /** Slices with constant bounds. */
  slice(
    x: string,
    starts: readonly number[],
    ends: readonly number[],
    axes: readonly number[],
    steps?: readonly number[],
  ): string {
    return this.op("Slice", [x, this.i64(starts), this.i64(ends), this.i64(axes), ...(steps ? [this.i64(steps)] : [])]);
  }
}
