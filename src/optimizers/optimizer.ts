/**
 * What an optimizer is: it declares its state and emits ONNX nodes that turn (parameters, gradients, state,
 * hyperparameters) into (parameters', state'). A step is a pure function, so the same nodes run in a session of their
 * own, inside the training program, or inside a Loop, on any device.
 */
import type { GraphBuilder } from "../onnx/builder.js";
import type { DataType } from "../onnx/proto.js";
import type { TensorData } from "../onnx/tensor.js";
import type { StatisticsTerm } from "../sections/statistics-term.js";

/** A parameter that the optimizer updates; its shape is static. float32. */
export interface ParameterSpec {
  readonly name: string;
  readonly dims: readonly number[];
}

/** One tensor of optimizer state. */
export interface StateSpec {
  /** Unique within the optimizer, such as `encoder.0.weight/exp_avg` or `encoder.0.weight/block0/L`. */
  readonly name: string;
  readonly type: DataType;
  readonly dims: readonly number[];
  /** The state before the first step. */
  init(): TensorData;
}

/** Scalars fed at every step (float32, rank 0), so that schedules never rebuild a graph. */
export type HyperparameterName = "learning_rate" | "step" | (string & {});

/** How an emitting function reaches the tensors around it: value names by role. */
export interface StepValues {
  parameter(name: string): string;
  /** The true gradient. */
  gradient(name: string): string;
  /** The gradient that feeds the statistics: the sampled one for Fishy, the true one for Shampoo. */
  statisticsGradient(name: string): string;
  /** What the statistics take instead of a gradient, where the program knows their expectation (`draw: expected`). */
  statisticsTerms?(name: string): readonly StatisticsTerm[] | undefined;
  state(name: string): string;
  hyperparameter(name: HyperparameterName): string;
  /** Set for a device that has neither Loop nor float64: what is emitted then must do without. */
  readonly target?: "webgpu" | undefined;
}

/** What the roots are made of. */
export type RootValues = Pick<StepValues, "state" | "hyperparameter" | "target">;

/** Value names of what changed; what is absent is unchanged. */
export interface StepResult {
  readonly parameters: ReadonlyMap<string, string>;
  readonly state: ReadonlyMap<string, string>;
  /** Float scalars worth logging, by name. */
  readonly metrics?: ReadonlyMap<string, string>;
  /** Float vectors worth logging: one entry for each block that `Optimizer.blocks` lists under the same name. */
  readonly blockMetrics?: ReadonlyMap<string, string>;
}

/** An optimizer bound to a list of parameters. */
export interface Optimizer {
  readonly name: string;
  readonly parameters: readonly ParameterSpec[];
  readonly state: readonly StateSpec[];
  /** Which gradient `statisticsGradient` has to be; absent when there are no statistics. */
  readonly statisticsSource?: "gradient" | "sampled";
  /** The state that holds a parameter's running average, by parameter name, when averages are kept. */
  readonly averages?: ReadonlyMap<string, string>;
  /** What the entries of each block metric stand for, such as `encoder.0.weight/0/axis0`. */
  readonly blocks?: ReadonlyMap<string, readonly string[]>;
  /** Hyperparameters fed at each step and their values; `step` counts from 1. */
  hyperparameters(step: number): Readonly<Record<HyperparameterName, number>>;
  /** Which of the parts below run at a step; `step` counts from 1. */
  schedule(step: number): StepSchedule;
  /** Emits the update with the true gradient. */
  emitUpdate(b: GraphBuilder, values: StepValues): StepResult;
  /** Emits the update of the statistics from `statisticsGradient`; absent for first-order optimizers. */
  emitStatistics?(b: GraphBuilder, values: StepValues): StepResult;
  /** Emits the refresh of the preconditioners from the statistics, with diagnostics as metrics. */
  emitRoots?(b: GraphBuilder, values: RootValues): StepResult;
}

export interface StepSchedule {
  /** Whether the statistics are updated, which needs `statisticsGradient`. They are updated before the roots. */
  readonly statistics: boolean;
  /** Whether the roots are refreshed, before the update uses them. */
  readonly roots: boolean;
}
