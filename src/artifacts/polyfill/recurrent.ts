/**
 * LSTM and GRU with what their gradients need, and the gradients: ONNX Runtime's training kernels
 * (orttraining/training_ops/cpu/rnn), which know the forward direction, the default activations and no peepholes.
 * Each is a Scan over time, so that the length need not be known. Gates as ONNX orders them: i, o, f, c and z, r, h.
 */
import { intOf, stringOf, stringsOf } from "../../onnx/attributes.js";
import type { GraphBuilder } from "../../onnx/builder.js";
import { DataType } from "../../onnx/proto.js";
import { at, type BodyContext, NoBody } from "./body.js";

type Values = readonly string[];
const ANY_FLOAT = { elemType: DataType.FLOAT, shape: undefined };

interface ScanSpec {
  /** Initial values of what is carried from step to step. */
  readonly states: Values;
  /** What each step sees one row of, time first. */
  readonly rows: Values;
  readonly backwards?: boolean;
  /** Gives the next states, and the step's row of each output. */
  step(b: GraphBuilder, states: Values, rows: Values): { readonly states: Values; readonly rows: Values };
}

/** @returns the last states, then the rows of all steps. */
function scan(b: GraphBuilder, { states, rows, backwards, step }: ScanSpec): { states: string[]; rows: string[] } {
  const inner = b.subgraph("step");
  const inputs = (kind: string, values: Values) =>
    values.map(() => {
      const name = inner.unique(kind);
      inner.graph.input.push({ name, type: { tensorType: { elemType: DataType.FLOAT } } });
      return name;
    });
  const made = step(inner, inputs("state", states), inputs("row", rows));
  for (const name of [...made.states, ...made.rows]) inner.output(inner.op("Identity", [name]), ANY_FLOAT);
  const direction = backwards ? 1 : 0;
  const outputs = b.node("Scan", [...states, ...rows], {
    outputs: states.length + made.rows.length,
    attributes: {
      body: inner.graph,
      num_scan_inputs: rows.length,
      scan_input_directions: rows.map(() => direction),
      scan_output_directions: made.rows.map(() => direction),
    },
  });
  return { states: outputs.slice(0, states.length), rows: outputs.slice(states.length) };
}

/** Inputs: X, W, R, B, sequence lengths, first state, first cell. Outputs: Y, last state, last cell, all cells, gates. */
export function lstmTraining(c: BodyContext): Values {
  const { b } = c;
  const hidden = cell(c, { lengths: 4, peepholes: 7, activations: ["Sigmoid", "Tanh", "Tanh"] });
  const { W, R } = matrices(c);
  const bias = biases(c, 3, 4 * hidden);
  const { states, rows } = scan(b, {
    states: [state(c, 5, hidden), state(c, 6, hidden)],
    rows: [projected(c, W, bias && b.add(bias.input, bias.state))],
    step: (s, [h, cellState], [x]) => {
      const z = s.add(x as string, s.matMul(h as string, transposed(s, R)));
      const [i, o, f] = gates(s, z, hidden, [0, 1, 2]).map((gate) => s.op("Sigmoid", [gate])) as [
        string,
        string,
        string,
      ];
      const candidate = s.op("Tanh", gates(s, z, hidden, [3]));
      const next = s.add(s.mul(f, cellState as string), s.mul(i, candidate));
      const output = s.mul(o, s.op("Tanh", [next]));
      return { states: [output, next], rows: [output, next, s.concat([i, o, f, candidate], 1)] };
    },
  });
  const [y, cells, iofc] = rows.map((row) => b.unsqueeze(row, [1])) as [string, string, string];
  const [h, last] = states.map((value) => b.unsqueeze(value, [0])) as [string, string];
  return [y, h, last, cells, iofc];
}

/**
 * Inputs: X, W, R, sequence lengths, first state, first cell, all states, all cells, gates, and the cotangents of all
 * states, of the last state and of the last cell. Outputs: dX, dW, dR, dB, those of the first state and cell, peepholes.
 */
export function lstmGrad(c: BodyContext): Values {
  const { b } = c;
  const hidden = cell(c, { lengths: 3, activations: ["Sigmoid", "Tanh", "Tanh"] });
  if (c.node.output[6]) throw new NoBody("has a gradient of peepholes");
  const { W, R } = matrices(c);
  const [h0, c0] = [state(c, 4, hidden), state(c, 5, hidden)];
  const [states, cells, iofc] = [6, 7, 8].map((i) => b.squeeze(at(c, i), [1])) as [string, string, string];
  const scanned = scan(b, {
    states: [state(c, 10, hidden), state(c, 11, hidden)],
    rows: [cotangents(c, 9, states), previous(b, c0, cells), cells, iofc],
    backwards: true,
    step: (s, [dLater, dCellLater], [dY, before, now, gate]) => {
      const [i, o, f, candidate] = gates(s, gate as string, hidden, [0, 1, 2, 3]) as [string, string, string, string];
      const tanh = s.op("Tanh", [now as string]);
      const dh = s.add(dY as string, dLater as string);
      const dCell = s.add(dCellLater as string, s.mul(s.mul(dh, o), oneMinus(s, s.mul(tanh, tanh))));
      const dz = s.concat(
        [
          s.mul(s.mul(dCell, candidate), slope(s, i)),
          s.mul(s.mul(dh, tanh), slope(s, o)),
          s.mul(s.mul(dCell, before as string), slope(s, f)),
          s.mul(s.mul(dCell, i), oneMinus(s, s.mul(candidate, candidate))),
        ],
        1,
      );
      return { states: [s.matMul(dz, R), s.mul(dCell, f)], rows: [dz] };
    },
  });
  const dz = scanned.rows[0] as string;
  const [dH0, dC0] = scanned.states.map((value) => b.unsqueeze(value, [0])) as [string, string];
  const dB = b.unsqueeze(b.reduceSum(dz, [0, 1], false), [0]);
  return [
    b.matMul(dz, W),
    weightGradient(b, dz, at(c, 0)),
    weightGradient(b, dz, previous(b, h0, states)),
    b.concat([dB, dB], 1),
    dH0,
    dC0,
    ...c.node.output.slice(6).map(() => dB),
  ];
}

/** Inputs: X, W, R, B, sequence lengths, first state. Outputs: Y, last state, gates. */
export function gruTraining(c: BodyContext): Values {
  const { b } = c;
  const hidden = cell(c, { lengths: 4, activations: ["Sigmoid", "Tanh"] });
  const { W, R } = matrices(c);
  const bias = biases(c, 3, 3 * hidden);
  const late = intOf(c.node, "linear_before_reset", 0) !== 0;
  const { states, rows } = scan(b, {
    states: [state(c, 5, hidden)],
    rows: [projected(c, W, bias?.input)],
    step: (s, [h], [x]) => {
      const recurrent = (value: string, part: readonly number[]) => {
        const product = s.matMul(value, transposed(s, rowsOf(s, R, hidden, part)));
        return bias ? s.add(product, columnsOf(s, bias.state, hidden, part)) : product;
      };
      const zr = s.op("Sigmoid", [s.add(columnsOf(s, x as string, hidden, [0, 1]), recurrent(h as string, [0, 1]))]);
      const [z, r] = gates(s, zr, hidden, [0, 1]) as [string, string];
      const inner = late ? s.mul(r, recurrent(h as string, [2])) : recurrent(s.mul(r, h as string), [2]);
      const candidate = s.op("Tanh", [s.add(columnsOf(s, x as string, hidden, [2]), inner)]);
      const next = s.add(s.mul(oneMinus(s, z), candidate), s.mul(z, h as string));
      return { states: [next], rows: [next, s.concat([z, r, candidate], 1)] };
    },
  });
  const [y, zrh] = rows.map((row) => b.unsqueeze(row, [1])) as [string, string];
  return [y, b.unsqueeze(states[0] as string, [0]), zrh];
}

/**
 * Inputs: X, W, R, B, sequence lengths, first state, all states, gates, and the cotangents of all states and of the last.
 * Outputs: dX, dW, dR, dB, that of the first state.
 */
export function gruGrad(c: BodyContext): Values {
  const { b } = c;
  const hidden = cell(c, { lengths: 4, activations: ["Sigmoid", "Tanh"] });
  const { W, R } = matrices(c);
  const bias = biases(c, 3, 3 * hidden);
  const late = intOf(c.node, "linear_before_reset", 0) !== 0;
  const h0 = state(c, 5, hidden);
  const [states, zrh] = [6, 7].map((i) => b.squeeze(at(c, i), [1])) as [string, string];
  const before = previous(b, h0, states);
  const scanned = scan(b, {
    states: [state(c, 9, hidden)],
    rows: [cotangents(c, 8, states), before, zrh],
    backwards: true,
    step: (s, [dLater], [dY, h, gate]) => {
      const [z, r, candidate] = gates(s, gate as string, hidden, [0, 1, 2]) as [string, string, string];
      const rows = (part: readonly number[]) => rowsOf(s, R, hidden, part);
      const dh = s.add(dY as string, dLater as string);
      const dz = s.mul(s.mul(dh, s.sub(h as string, candidate)), slope(s, z));
      const dCandidate = s.mul(s.mul(dh, oneMinus(s, z)), oneMinus(s, s.mul(candidate, candidate)));
      // What multiplies the candidate's rows of R, and what goes back to the state and the reset gate through them.
      const dRecurrent = late ? s.mul(dCandidate, r) : dCandidate;
      const back = s.matMul(dRecurrent, rows([2]));
      const product = s.matMul(h as string, transposed(s, rows([2])));
      const withBias = bias ? s.add(product, columnsOf(s, bias.state, hidden, [2])) : product;
      const dr = s.mul(late ? s.mul(dCandidate, withBias) : s.mul(back, h as string), slope(s, r));
      const zr = s.concat([dz, dr], 1);
      const direct = s.add(s.mul(dh, z), s.matMul(zr, rows([0, 1])));
      const next = s.add(direct, late ? back : s.mul(back, r));
      return { states: [next], rows: [s.concat([zr, dCandidate], 1), s.concat([zr, dRecurrent], 1)] };
    },
  });
  const [dInput, dRecurrent] = scanned.rows as [string, string];
  const dR = late
    ? weightGradient(b, dRecurrent, before)
    : b.concat(
        [
          weightGradient(b, columns(b, dRecurrent, 0, 2 * hidden), before),
          weightGradient(
            b,
            columns(b, dRecurrent, 2 * hidden, 3 * hidden),
            b.mul(before, columns(b, zrh, hidden, 2 * hidden)),
          ),
        ],
        1,
      );
  const sums = [dInput, dRecurrent].map((value) => b.reduceSum(value, [0, 1], false));
  return [
    b.matMul(dInput, W),
    weightGradient(b, dInput, at(c, 0)),
    dR,
    b.unsqueeze(b.concat(sums, 0), [0]),
    b.unsqueeze(scanned.states[0] as string, [0]),
  ];
}

interface Cell {
  /** Positions of inputs that the kernels do without. */
  readonly lengths: number;
  readonly peepholes?: number;
  readonly activations: Values;
}

/** The hidden size. @throws NoBody for what ONNX Runtime's training kernels refuse as well. */
function cell({ node }: BodyContext, { lengths, peepholes, activations }: Cell): number {
  if (stringOf(node, "direction", "forward") !== "forward") throw new NoBody("goes in another direction than forward");
  if (node.input[lengths]) throw new NoBody("has sequence lengths");
  if (peepholes !== undefined && node.input[peepholes]) throw new NoBody("has peepholes");
  const own = stringsOf(node, "activations");
  if (own && own.join() !== activations.join())
    throw new NoBody(`has activations other than ${activations.join(", ")}`);
  if (node.attribute.some(({ name }) => name === "clip")) throw new NoBody("clips");
  if (intOf(node, "input_forget", 0) !== 0) throw new NoBody("couples its gates");
  const hidden = intOf(node, "hidden_size");
  if (hidden === undefined) throw new NoBody("has no hidden_size");
  return hidden;
}

function matrices(c: BodyContext): { W: string; R: string } {
  return { W: c.b.squeeze(at(c, 1), [0]), R: c.b.squeeze(at(c, 2), [0]) };
}

/** The two halves of B; undefined without it. */
function biases(c: BodyContext, position: number, size: number): { input: string; state: string } | undefined {
  if (!c.inputs[position]) return undefined;
  const all = c.b.squeeze(at(c, position), [0]);
  return { input: c.b.slice(all, [0], [size], [0]), state: c.b.slice(all, [size], [2 * size], [0]) };
}

/** X·Wᵀ of all steps at once, with a bias. */
function projected(c: BodyContext, W: string, bias: string | undefined): string {
  const product = c.b.matMul(at(c, 0), transposed(c.b, W));
  return bias ? c.b.add(product, bias) : product;
}

/** A state [1, batch, hidden] as [batch, hidden]; zeros when it is left out. */
function state(c: BodyContext, position: number, hidden: number): string {
  const { b } = c;
  if (c.inputs[position]) return b.squeeze(at(c, position), [0]);
  const batch = b.op("Shape", [at(c, 0)], { start: 1, end: 2 });
  return b.expand(b.f32(0), b.concat([batch, b.i64([hidden])], 0));
}

/** The cotangents of all states as [time, batch, hidden]; zeros when they are left out. */
function cotangents(c: BodyContext, position: number, states: string): string {
  if (c.inputs[position]) return c.b.squeeze(at(c, position), [1]);
  return c.b.expand(c.b.f32(0), c.b.shape(states));
}

/** The values one step before: the first, and all but the last of [time, batch, hidden]. */
function previous(b: GraphBuilder, first: string, all: string): string {
  return b.concat([b.unsqueeze(first, [0]), b.slice(all, [0], [-1], [0])], 0);
}

/** Σ over steps and examples of dz ⊗ x, as [1, rows, columns]. */
function weightGradient(b: GraphBuilder, dz: string, x: string): string {
  const flat = (value: string) => b.op("Flatten", [value], { axis: 2 });
  return b.unsqueeze(b.gemm(flat(dz), flat(x), { transA: true }), [0]);
}

function transposed(b: GraphBuilder, matrix: string): string {
  return b.transpose(matrix, [1, 0]);
}

/** Neighbouring gates, each on its own, of [batch, gates·hidden]. */
function gates(b: GraphBuilder, z: string, hidden: number, which: readonly number[]): string[] {
  return which.map((k) => b.slice(z, [k * hidden], [(k + 1) * hidden], [-1]));
}

function columnsOf(b: GraphBuilder, z: string, hidden: number, part: readonly number[]): string {
  return columns(b, z, Math.min(...part) * hidden, (Math.max(...part) + 1) * hidden);
}

function columns(b: GraphBuilder, z: string, from: number, to: number): string {
  return b.slice(z, [from], [to], [-1]);
}

function rowsOf(b: GraphBuilder, R: string, hidden: number, part: readonly number[]): string {
  return b.slice(R, [Math.min(...part) * hidden], [(Math.max(...part) + 1) * hidden], [0]);
}

function oneMinus(b: GraphBuilder, x: string): string {
  return b.sub(b.f32(1), x);
}

/** The sigmoid's slope at y = sigmoid(x). */
function slope(b: GraphBuilder, y: string): string {
  return b.mul(y, oneMinus(b, y));
}
