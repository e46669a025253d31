/**
 * What LSTM, GRU and RNN share: one Gemm projects the inputs of all steps and directions, then every step is a few
 * nodes on [batch, hidden] matrices. The number of steps must be known.
 *
 * Shapes, with T steps, B examples, D directions, H hidden units, G gates: X [T, B, I], W [D, G·H, I], R [D, G·H, H],
 * B [D, 2·G·H], sequence_lens [B], initial states [D, B, H]; Y [T, D, B, H], final states [D, B, H].
 */
import { intsOf, stringOf } from "../../onnx/attributes.js";
import { DataType, type NodeProto } from "../../onnx/proto.js";
import { numbersOf } from "../../onnx/tensor.js";
import type { LoweringContext } from "./lowering.js";
import { type Activation, type ActivationSlot, activationsOf } from "./recurrent-activations.js";
import { Rows } from "./rows.js";
import { dimName, stepsProblem } from "./unrolling.js";
import { isZero } from "./zero.js";

/** The state before or after a step, each [B, H]; undefined for zeros. */
export interface State {
  readonly h: string | undefined;
  readonly c?: string | undefined;
}

/** One step: the projected input [B, G·H] and the state before → the state after. */
export type Step = (x: string, state: State) => State & { readonly h: string };

/** What a cell is made from, for one direction. */
export interface CellOptions {
  readonly node: NodeProto;
  readonly rows: Rows;
  readonly hidden: number;
  /** R of the direction, [G·H, H]. */
  readonly recurrentWeights: string;
  /** The bias of R, [G·H], when the cell asked for it apart. */
  readonly recurrentBias: string | undefined;
  /** P of the direction, [3·H]. */
  readonly peepholes: string | undefined;
  readonly activations: readonly Activation[];
}

export interface Cell {
  readonly gates: number;
  /** The activations of a direction. */
  readonly activations: readonly ActivationSlot[];
  /** Whether R's bias is given to the cell instead of being added to the projection. */
  keepsRecurrentBias(node: NodeProto): boolean;
  step(options: CellOptions): Step;
}

/** Emits the unrolled operator in place of `node`. */
export function unrollRecurrence(node: NodeProto, context: LoweringContext, cell: Cell): boolean {
  if (!node.output.some((name) => name && context.isOnGradientPath(name))) return false;
  const [X, W, R] = node.input as [string, string, string];
  const type = context.types.get(X);
  const steps = type?.shape?.[0];
  const [directions, , inputSize] = context.types.get(W)?.shape ?? [];
  const hidden = context.types.get(R)?.shape?.[2];
  if (!type || typeof steps !== "number") {
    return context.refuse(
      `its sequence length, dimension 0 of '${X}', is ${dimName(steps)} at export: only a fixed number of steps can be unrolled. Export the model with a fixed sequence length (no dynamic_axes or dynamic_shapes entry for time)`,
    );
  }
  if (typeof directions !== "number" || typeof inputSize !== "number" || typeof hidden !== "number") {
    return context.refuse(`the shapes of its weights '${W}' and '${R}' are not known`);
  }
  if (steps === 0) return context.refuse(`its input '${X}' has no steps`);
  const problem = stepsProblem(steps * directions, "it");
  if (problem) return context.refuse(problem);
  const activations = activationsOf(node, cell.activations, directions);
  if ("unknown" in activations) {
    return context.refuse(`its activation '${activations.unknown}' is none of ONNX's recurrent activations`);
  }
  const batch = type.shape?.[1] ?? `batch of ${node.output.find(Boolean)}`;
  const rows = new Rows(context, batch, type.elemType);
  new Unrolled(node, context, cell, rows, { steps, directions, inputSize, hidden }).emit(activations);
  return true;
}

interface Sizes {
  readonly steps: number;
  readonly directions: number;
  readonly inputSize: number;
  readonly hidden: number;
}

class Unrolled {
  private readonly b;
  /** Rows of W for a direction: G·H. */
  private readonly width: number;

  constructor(
    private readonly node: NodeProto,
    private readonly context: LoweringContext,
    private readonly cell: Cell,
    private readonly rows: Rows,
    private readonly sizes: Sizes,
  ) {
    this.b = context.b;
    this.width = cell.gates * sizes.hidden;
  }

  emit(activations: readonly Activation[][]): void {
    const { node, cell, rows, sizes } = this;
    const { steps, directions, hidden } = sizes;
    const recurrentWeights = this.perDirection(node.input[2] as string, [this.width, hidden]);
    const bias = this.biases();
    const inputs = this.projections(bias.projection);
    const masks = this.masks();
    const initialH = this.initialState(node.input[5]);
    const initialC = this.initialState(node.input[6]);
    const peepholes = node.input[7] ? this.perDirection(node.input[7], [3 * hidden]) : [];
    const outputs: string[][] = Array.from({ length: steps }, () => []);
    const finals: State[] = [];
    for (let d = 0; d < directions; d++) {
      const step = cell.step({
        node,
        rows,
        hidden,
        recurrentWeights: recurrentWeights[d] as string,
        recurrentBias: bias.recurrent[d],
        peepholes: peepholes[d],
        activations: activations[d] as Activation[],
      });
      let state: State = { h: initialH[d], c: initialC[d] };
      for (let i = 0; i < steps; i++) {
        const t = this.isReversed(d) ? steps - 1 - i : i;
        const next = step(inputs[t * directions + d] as string, state);
        const mask = masks(t);
        // Past its length an example keeps its state and gives zeros.
        outputs[t]?.push(mask ? this.choose(mask, next.h, undefined) : next.h);
        state = mask
          ? { h: this.choose(mask, next.h, state.h), c: next.c && this.choose(mask, next.c, state.c) }
          : next;
      }
      finals.push(this.withoutEmpty(state, masks(0)));
    }
    this.emitSequence(node.output[0], outputs.flat());
    this.emitFinal(
      node.output[1],
      finals.map((state) => state.h as string),
    );
    this.emitFinal(
      node.output[2],
      finals.map((state) => state.c as string),
    );
  }

  private isReversed(direction: number): boolean {
    return direction === 1 || stringOf(this.node, "direction", "forward") === "reverse";
  }

  /** [D, ...dims] → D × [...dims]. */
  private perDirection(value: string, dims: readonly number[]): string[] {
    const { directions } = this.sizes;
    if (directions === 1) return [this.b.reshape(value, dims)];
    const parts = this.b.node("Split", [value], {
      outputs: directions,
      attributes: { axis: 0, num_outputs: directions },
    });
    return parts.map((part) => this.b.reshape(part, dims));
  }

  /** The bias of the projection [D·G·H], and R's own per direction where the cell keeps it. */
  private biases(): { projection: string | undefined; recurrent: (string | undefined)[] } {
    const { b, node, width } = this;
    const both = node.input[3];
    if (!both) return { projection: undefined, recurrent: [] };
    const [input, recurrent] = b.node("Split", [both, b.i64([width, width])], { outputs: 2, attributes: { axis: 1 } });
    const flat = (value: string) => b.reshape(value, [this.sizes.directions * width]);
    if (this.cell.keepsRecurrentBias(node)) {
      return { projection: flat(input as string), recurrent: this.perDirection(recurrent as string, [width]) };
    }
    return { projection: flat(b.add(input as string, recurrent as string)), recurrent: [] };
  }

  /** The projected inputs, [B, G·H] each, of step t and direction d at index t·D + d. */
  private projections(bias: string | undefined): string[] {
    const { b, rows, width, sizes } = this;
    const { steps, directions, inputSize } = sizes;
    const flat = b.reshape(this.batchMajorInput(), [-1, inputSize]);
    const weights = b.reshape(this.node.input[1] as string, [directions * width, inputSize]);
    const projected = b.gemm(flat, weights, { transB: true, ...(bias && { c: bias }) });
    const count = steps * directions;
    const table = rows.declare(b.reshape(projected, [-1, count * width]), count * width);
    return rows.splitEvenly(table, count, width);
  }

  /** X as [B, T, I]; exporters of batch-major models have just transposed it. */
  private batchMajorInput(): string {
    const X = this.node.input[0] as string;
    const producer = this.context.producer(X);
    const { steps, inputSize } = this.sizes;
    if (producer?.opType === "Transpose" && intsOf(producer, "perm")?.join() === "1,0,2")
      return producer.input[0] as string;
    return this.rows.declare(this.b.transpose(X, [1, 0, 2]), steps, inputSize);
  }

  /** The initial state of each direction; undefined for zeros. */
  private initialState(name: string | undefined): (string | undefined)[] {
    if (!name || isZero(name, this.context)) return [];
    const { b, rows, sizes } = this;
    const { directions, hidden } = sizes;
    const parts =
      directions === 1
        ? [name]
        : b.node("Split", [name], { outputs: directions, attributes: { axis: 0, num_outputs: directions } });
    return parts.map((part) => rows.declare(b.squeeze(part, [0]), hidden));
  }

  /** For every step, which examples still run: bool [B, 1]; undefined where all do. */
  private masks(): (t: number) => string | undefined {
    const lengths = this.node.input[4];
    if (!lengths) return () => undefined;
    const constant = this.context.constantOf(lengths);
    const shortest = constant ? Math.min(...numbersOf(constant)) : 0;
    const known = new Map<number, string>();
    let column: string | undefined;
    return (t) => {
      if (t < shortest) return undefined;
      column ??= this.rows.declare(this.b.unsqueeze(lengths, [1]), 1);
      const mask = known.get(t) ?? this.rows.op("Less", [this.b.constant(DataType.INT32, t), column], 1);
      known.set(t, mask);
      return mask;
    };
  }

  /** An example of length zero ends with zeros, not with its initial state: so ONNX Runtime has it. */
  private withoutEmpty(state: State, mask: string | undefined): State {
    if (!mask) return state;
    return { h: this.choose(mask, state.h as string, undefined), c: state.c && this.choose(mask, state.c, undefined) };
  }

  /** `value` where the mask is set, `other` (zeros when undefined) elsewhere. */
  private choose(mask: string, value: string, other: string | undefined): string {
    return this.rows.op("Where", [mask, value, other ?? this.rows.scalar(0)], this.sizes.hidden);
  }

  /** Y from its [B, H] pieces in the order of steps and directions. */
  private emitSequence(name: string | undefined, pieces: readonly string[]): void {
    if (!name || !this.context.isUsed(name)) return;
    const { b, rows, sizes } = this;
    const { steps, directions, hidden } = sizes;
    const joined = rows.declare(b.concat(pieces, 1), pieces.length * hidden);
    const apart = rows.declare(b.reshape(joined, [-1, steps, directions, hidden]), steps, directions, hidden);
    b.node("Transpose", [apart], { outputs: [name], attributes: { perm: [1, 2, 0, 3] } });
    this.context.declareShape(name, [steps, directions, rows.batch, hidden]);
  }

  /** A final state from that of each direction. */
  private emitFinal(name: string | undefined, states: readonly string[]): void {
    if (!name || !this.context.isUsed(name)) return;
    const { b, rows, sizes } = this;
    const [axis, outputs] = [b.i64([0]), [name]];
    if (states.length === 1) b.node("Unsqueeze", [states[0] as string, axis], { outputs });
    else {
      const stacked = states.map((state) => b.unsqueeze(state, axis));
      b.node("Concat", stacked, { outputs, attributes: { axis: 0 } });
    }
    this.context.declareShape(name, [sizes.directions, rows.batch, sizes.hidden]);
  }
}
