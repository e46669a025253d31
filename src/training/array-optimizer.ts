/**
 * Optimizers on plain arrays: parameters and gradients may come from anywhere, and the arithmetic runs in sessions of
 * ONNX Runtime that this class makes.
 */
import { FishyError } from "../errors.js";
import { DataType } from "../onnx/proto.js";
import { elementCount, type TensorData } from "../onnx/tensor.js";
import type { Optimizer, ParameterSpec } from "../optimizers/optimizer.js";
import { type OptimizerPart, type PartProgram, partProgram } from "../optimizers/program.js";
import { createOptimizer, type OptimizerOptions } from "../optimizers/registry.js";
import type { RunLength } from "../optimizers/schedules.js";
import { loadRuntime, type Runtime, type Tensor, tensorOver } from "../runtime/ort.js";
import { createSession, type Session } from "../runtime/session.js";

/** A parameter with its first value, which is copied. */
export interface ArrayParameter extends ParameterSpec {
  readonly data: ArrayLike<number>;
}

/** Float32 arrays by parameter name. */
export type Gradients = ReadonlyMap<string, ArrayLike<number>> | Readonly<Record<string, ArrayLike<number>>>;

/** What a step of an `ArrayOptimizer` tells. */
export interface ArrayStepResult {
  /** Scalars by name, of the parts that ran. */
  readonly metrics: Readonly<Record<string, number>>;
  /** Vectors by name, one entry for each block of `optimizer.blocks`. */
  readonly blockMetrics: Readonly<Record<string, Float32Array>>;
}

interface LoadedPart {
  readonly program: PartProgram;
  readonly session: Session;
}

/** An optimizer with its parameters and state. Make one with `createArrayOptimizer`; call `release` at the end. */
export class ArrayOptimizer {
  private done = 0;
  private readonly values: Map<string, Float32Array>;
  private readonly states: Map<string, TensorData>;

  constructor(
    private readonly ort: Runtime,
    readonly optimizer: Optimizer,
    private readonly parts: ReadonlyMap<OptimizerPart, LoadedPart>,
    initial: ReadonlyMap<string, Float32Array>,
  ) {
    this.values = new Map(initial);
    this.states = new Map(optimizer.state.map((state) => [state.name, state.init()]));
  }

  /** Steps done. */
  get stepsDone(): number {
    return this.done;
  }

  /** Parameters by name, as of now. */
  get parameters(): ReadonlyMap<string, Float32Array> {
    return this.values;
  }

  /** State tensors by name, as of now. With `stepsDone` and the parameters it is the whole checkpoint. */
  get state(): ReadonlyMap<string, TensorData> {
    return this.states;
  }

  /**
   * Goes on from a checkpoint.
   * @throws FishyError when a tensor is missing or of the wrong size.
   */
  restore(step: number, parameters: ReadonlyMap<string, Float32Array>, state: ReadonlyMap<string, TensorData>): void {
    const checked = (what: string, values: ReadonlyMap<string, TensorData>, name: string, dims: readonly number[]) => {
      const data = values.get(name);
      if (data?.length === elementCount(dims)) return data.slice();
      throw new FishyError(
        `The ${what} '${name}' of the checkpoint has ${data?.length ?? "no"} elements; expected ${elementCount(dims)}.`,
      );
    };
    for (const { name, dims } of this.optimizer.parameters) {
      this.values.set(name, checked("parameter", parameters, name, dims) as Float32Array);
    }
    for (const { name, dims } of this.optimizer.state) this.states.set(name, checked("state", state, name, dims));
    this.done = step;
  }

  /**
   * Does one step.
   * @param gradients the true gradient of every parameter, in its shape, flattened.
   * @param statisticsGradients what feeds the statistics when the optimizer wants another gradient than the true one.
   * @throws FishyError when a gradient is missing, of the wrong length, or not finite.
   */
  async step(gradients: Gradients, statisticsGradients?: Gradients): Promise<ArrayStepResult> {
    const { optimizer } = this;
    const step = this.done + 1;
    const schedule = optimizer.schedule(step);
    const trueGradients = this.checked("gradient", gradients);
    let sampled = trueGradients;
    if (schedule.statistics && statisticsGradients) {
      sampled = this.checked("statistics gradient", statisticsGradients);
    } else if (schedule.statistics && optimizer.statisticsSource === "sampled") {
      throw new FishyError(
        `${optimizer.name} takes its statistics from sampled gradients: pass them as the second argument of step ${step}.`,
      );
    }
    const result = { metrics: {}, blockMetrics: {} };
    if (schedule.statistics) await this.runPart("statistics", step, trueGradients, sampled, result);
    if (schedule.roots) await this.runPart("roots", step, trueGradients, sampled, result);
    await this.runPart("update", step, trueGradients, sampled, result);
    this.done = step;
    return result;
  }

  /** Frees the sessions; the optimizer is of no use afterwards. */
  async release(): Promise<void> {
    await Promise.all([...this.parts.values()].map((part) => part.session.release()));
  }

  private async runPart(
    name: OptimizerPart,
    step: number,
    gradients: ReadonlyMap<string, Float32Array>,
    statisticsGradients: ReadonlyMap<string, Float32Array>,
    result: { metrics: Record<string, number>; blockMetrics: Record<string, Float32Array> },
  ): Promise<void> {
    const part = this.parts.get(name);
    if (!part || part.program.outputs.size === 0) return;
    const hyperparameters = this.optimizer.hyperparameters(step);
    const feeds: Record<string, Tensor> = {};
    for (const [inputName, { role, name }] of part.program.inputs) {
      const tensor = (data: TensorData | undefined, dims: readonly number[], type: DataType = DataType.FLOAT) => {
        if (!data) throw new Error(`nothing to feed for ${inputName}`);
        return tensorOver(this.ort, type, dims, data, inputName);
      };
      const dims = this.optimizer.parameters.find((parameter) => parameter.name === name)?.dims ?? [];
      if (role === "parameter") feeds[inputName] = tensor(this.values.get(name), dims);
      else if (role === "gradient") feeds[inputName] = tensor(gradients.get(name), dims);
      else if (role === "statisticsGradient") feeds[inputName] = tensor(statisticsGradients.get(name), dims);
      else if (role === "state") {
        const spec = this.optimizer.state.find((state) => state.name === name);
        feeds[inputName] = tensor(this.states.get(name), spec?.dims ?? [], spec?.type);
      } else feeds[inputName] = tensor(Float32Array.of(hyperparameters[name] as number), []);
    }
    const fetched = await part.session.fetch(feeds, [...part.program.outputs.keys()]);
    for (const [outputName, { role, name }] of part.program.outputs) {
      const data = fetched[outputName]?.data as TensorData;
      if (role === "parameter") this.values.set(name, data as Float32Array);
      else if (role === "state") this.states.set(name, data);
      else if (role === "metric") result.metrics[name] = data[0] as number;
      else result.blockMetrics[name] = data as Float32Array;
    }
  }

  private checked(what: string, gradients: Gradients): Map<string, Float32Array> {
    const get = (name: string) =>
      gradients instanceof Map ? gradients.get(name) : (gradients as Record<string, ArrayLike<number>>)[name];
    return new Map(
      this.optimizer.parameters.map(({ name, dims }) => {
        const data = get(name) as ArrayLike<number> | undefined;
        if (data?.length !== elementCount(dims)) {
          throw new FishyError(
            `The ${what} of '${name}' has ${data?.length ?? "no"} elements; expected ${elementCount(dims)}, the shape [${dims.join(", ")}].`,
          );
        }
        const array = data instanceof Float32Array ? data : Float32Array.from(data);
        const bad = array.findIndex((value) => !Number.isFinite(value));
        if (bad >= 0) {
          throw new FishyError(
            `The ${what} of '${name}' is ${array[bad]} at element ${bad}; the step was not done. Lower the learning rate or clip the gradient.`,
          );
        }
        return [name, array];
      }),
    );
  }
}

/**
 * Makes an optimizer that works on plain arrays.
 *
 *     const shampoo = await createArrayOptimizer({ name: "shampoo" }, [{ name: "w", dims: [20, 10], data: w }]);
 *     await shampoo.step({ w: gradient });
 *     shampoo.parameters.get("w");
 *
 * @param run the length of the run, for schedules that end with it or count in epochs.
 * @throws UsageError for wrong options, FishyError for a parameter whose data does not fill its shape.
 */
export async function createArrayOptimizer(
  options: OptimizerOptions | Optimizer,
  parameters: readonly ArrayParameter[],
  run: RunLength & { readonly threads?: number } = {},
): Promise<ArrayOptimizer> {
  for (const { name, dims, data } of parameters) {
    if (data.length !== elementCount(dims)) {
      throw new FishyError(
        `The parameter '${name}' has ${data.length} elements, which do not fill its shape [${dims.join(", ")}].`,
      );
    }
  }
  const ort = await loadRuntime();
  const optimizer = "emitUpdate" in options ? options : createOptimizer(options, parameters, run);
  const parts = new Map<OptimizerPart, LoadedPart>();
  for (const part of ["update", "statistics", "roots"] as const) {
    const program = partProgram(optimizer, part);
    if (!program || program.outputs.size === 0) continue;
    const session = await createSession(program.model, {
      purpose: `the ${part} of ${optimizer.name}`,
      ...(run.threads !== undefined && { threads: run.threads }),
    });
    parts.set(part, { program, session });
  }
  const initial = new Map(parameters.map(({ name, data }) => [name, Float32Array.from(data)]));
  return new ArrayOptimizer(ort, optimizer, parts, initial);
}
