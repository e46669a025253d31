/**
 * Dynamic loss scaling, around any optimizer: float16 has no numbers below 6·10⁻⁸, where many gradients lie, so a program
 * in float16 propagates them multiplied by a scale. The optimizer is given them divided by it again. A step with a
 * gradient that is not finite changes nothing but the scale.
 *
 * Micikevicius et al., Mixed Precision Training (2018); the defaults are those of PyTorch's GradScaler.
 */
import type { GraphBuilder } from "../onnx/builder.js";
import { DataType } from "../onnx/proto.js";
import type { Optimizer, StateSpec, StepResult, StepValues } from "../optimizers/optimizer.js";
import { LOSS_SCALE } from "./precision.js";

/** State of an optimizer with loss scaling: the scale, and the steps since it last changed; float32 scalars. */
const LOSS_SCALE_STATE = LOSS_SCALE;
const GOOD_STEPS = `${LOSS_SCALE}/good_steps`;
/** Past this, gradients of ordinary size overflow in float32 too. */
const LARGEST = 2 ** 24;

export interface LossScalingOptions {
  /** The first scale, a power of two. Default 2¹⁶. */
  readonly initial?: number;
  /** Steps without overflow after which the scale doubles. Default 2000. */
  readonly interval?: number;
}

/**
 * An optimizer that expects gradients multiplied by its state `loss_scale`. Metrics: `loss_scale` (that of the step) and
 * `loss_scale/skipped` (1 where the gradient was not finite).
 */
export function withLossScaling(
  optimizer: Optimizer,
  { initial = 2 ** 16, interval = 2000 }: LossScalingOptions = {},
): Optimizer {
  const { emitStatistics } = optimizer;
  /** Whether the gradients that a step's statistics took were finite, by the builder of its graph. */
  const statistics = new WeakMap<GraphBuilder, string>();
  return {
    ...optimizer,
    state: [...optimizer.state, scalar(LOSS_SCALE_STATE, initial), scalar(GOOD_STEPS, 0)],
    ...(emitStatistics && {
      emitStatistics(b: GraphBuilder, values: StepValues): StepResult {
        const unscaled = new Unscaled(b, values);
        const result = emitStatistics.call(optimizer, b, unscaled.values);
        const finite = unscaled.areFinite();
        statistics.set(b, finite);
        return kept(b, result, finite, values);
      },
    }),
    emitUpdate(b, values) {
      const unscaled = new Unscaled(b, values);
      const result = optimizer.emitUpdate(b, unscaled.values);
      const finite = unscaled.areFinite();
      const update = kept(b, result, finite, values);
      const before = statistics.get(b);
      const all = before === undefined ? finite : b.op("And", [finite, before]);
      const scale = values.state(LOSS_SCALE_STATE);
      const good = b.add(values.state(GOOD_STEPS), b.f32(1));
      const isDue = b.op("GreaterOrEqual", [good, b.f32(interval)]);
      const larger = b.min(b.mul(scale, b.f32(2)), b.f32(LARGEST));
      const smaller = b.max(b.mul(scale, b.f32(0.5)), b.f32(1));
      const state = new Map(update.state);
      state.set(LOSS_SCALE_STATE, b.where(all, b.where(isDue, larger, scale), smaller));
      state.set(GOOD_STEPS, b.where(b.op("And", [all, b.op("Not", [isDue])]), good, b.f32(0)));
      return {
        ...update,
        state,
        metrics: new Map([
          ...(update.metrics ?? []),
          ["loss_scale", scale],
          ["loss_scale/skipped", b.cast(b.op("Not", [all]), DataType.FLOAT)],
        ]),
      };
    },
  };
}

function scalar(name: string, value: number): StateSpec {
  return { name, type: DataType.FLOAT, dims: [], init: () => Float32Array.of(value) };
}

/** Gradients without the scale, and whether those that were asked for are finite. */
class Unscaled {
  readonly values: StepValues;
  private readonly gradients = new Map<string, string>();
  private factor: string | undefined;

  constructor(
    private readonly b: GraphBuilder,
    values: StepValues,
  ) {
    const gradients: Partial<StepValues> = {
      gradient: (name) => this.of(values.gradient(name), values),
      statisticsGradient: (name) => this.of(values.statisticsGradient(name), values),
      statisticsTerms: (name) =>
        values
          .statisticsTerms?.(name)
          ?.map((term) => (term.kind === "gradient" ? { ...term, value: this.of(term.value, values) } : term)),
    };
    // Whatever else there is stays the values' own.
    this.values = Object.assign(Object.create(values) as StepValues, gradients);
  }

  private of(scaled: string, values: StepValues): string {
    const known = this.gradients.get(scaled);
    if (known !== undefined) return known;
    // A power of two: dividing by it is exact.
    this.factor ??= this.b.op("Reciprocal", [values.state(LOSS_SCALE_STATE)]);
    const value = this.b.mul(scaled, this.factor);
    this.gradients.set(scaled, value);
    return value;
  }

  /** A bool scalar. */
  areFinite(): string {
    const { b } = this;
    if (this.gradients.size === 0) return b.constant(DataType.BOOL, 1);
    // Zero times what is not finite is NaN, which a sum keeps.
    const zeros = [...this.gradients.values()].map((value) => b.reduceSum(b.mul(value, b.f32(0)), undefined, false));
    return b.equal(
      zeros.reduce((sum, zero) => b.add(sum, zero)),
      b.f32(0),
    );
  }
}

/** What a step makes where `finite` holds, and what was there before where it does not. */
function kept(b: GraphBuilder, result: StepResult, finite: string, values: StepValues): StepResult {
  const select = (made: ReadonlyMap<string, string>, before: (name: string) => string) =>
    new Map([...made].map(([name, value]) => [name, b.where(finite, value, before(name))]));
  return {
    ...result,
    parameters: select(result.parameters, (name) => values.parameter(name)),
    state: select(result.state, (name) => values.state(name)),
  };
}
