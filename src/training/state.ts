/** The tensors that a run carries from step to step: parameters, running statistics, optimizer state. */
import type { NamedTensor } from "../data/safetensors.js";
import { FishyError } from "../errors.js";
import { type ExternalSource, readTensor } from "../onnx/external.js";
import type { DataType } from "../onnx/proto.js";
import { dataTypeName, dimsOf } from "../onnx/tensor.js";
import type { Optimizer } from "../optimizers/optimizer.js";
import type { TrainingProgram } from "../rewrite/manifest.js";
import { allocateBuffer, DoubleBuffer } from "../runtime/buffers.js";
import type { Runtime, Tensor } from "../runtime/ort.js";
import { carriedNames, fedTensors } from "./inputs.js";

/** Everything that a run carries. */
export interface TrainingState {
  /** Parameters and running statistics by name. */
  readonly model: ReadonlyMap<string, NamedTensor>;
  /** Optimizer state by name. */
  readonly optimizer: ReadonlyMap<string, NamedTensor>;
}

/** The state of a run, in buffers that steps read and write. */
export class StateBuffers {
  private constructor(
    /** Parameters and running statistics by name. */
    readonly model: ReadonlyMap<string, DoubleBuffer>,
    readonly optimizer: ReadonlyMap<string, DoubleBuffer>,
    /** Frozen weights that are fed because they lie in external files. */
    readonly frozen: ReadonlyMap<string, Tensor>,
  ) {}

  /** The state before the first step. */
  static async initial(
    ort: Runtime,
    program: TrainingProgram,
    optimizer: Optimizer,
    source: ExternalSource,
  ): Promise<StateBuffers> {
    const carried = new Set(carriedNames(program));
    const model = new Map<string, DoubleBuffer>();
    const frozen = new Map<string, Tensor>();
    for (const tensor of fedTensors(program)) {
      const name = tensor.name ?? "";
      const what = `tensor '${name}'`;
      // A copy: the bytes of the program stay as they are.
      const data = (await readTensor(source, tensor)).slice();
      const buffer = allocateBuffer(ort, tensor.dataType as DataType, dimsOf(tensor), what, data);
      if (carried.has(name)) model.set(name, new DoubleBuffer(ort, what, buffer));
      else frozen.set(name, buffer.tensor);
    }
    const state = new Map<string, DoubleBuffer>();
    for (const spec of optimizer.state) {
      const what = `optimizer state '${spec.name}'`;
      state.set(spec.name, new DoubleBuffer(ort, what, allocateBuffer(ort, spec.type, spec.dims, what, spec.init())));
    }
    return new StateBuffers(model, state, frozen);
  }

  /** The state as it is; not a copy, so that the second step after this one overwrites it. */
  tensors(): TrainingState {
    const view = (buffers: ReadonlyMap<string, DoubleBuffer>) =>
      new Map([...buffers].map(([name, { current }]): [string, NamedTensor] => [name, tensorOf(current)]));
    return { model: view(this.model), optimizer: view(this.optimizer) };
  }

  /** A parameter, a running statistic or a frozen weight; undefined for what is none. */
  carriedTensor(name: string): Tensor | undefined {
    return this.model.get(name)?.current.tensor ?? this.frozen.get(name);
  }

  modelBuffer(name: string): DoubleBuffer {
    const buffer = this.model.get(name);
    if (!buffer) throw new Error(`the step writes '${name}', which is not carried`);
    return buffer;
  }

  optimizerBuffer(name: string): DoubleBuffer {
    const buffer = this.optimizer.get(name);
    if (!buffer) throw new Error(`the optimizer declares no state '${name}'`);
    return buffer;
  }

  /** Gives optimizer state other first values, where `first` has some of its type and shape. */
  seed(first: (name: string) => NamedTensor | undefined): void {
    for (const [name, { current }] of this.optimizer) {
      const value = first(name);
      if (value?.type !== current.type || value.dims.join() !== current.dims.join()) continue;
      (current.data as Float32Array).set(value.data as Float32Array);
    }
  }

  /**
   * Replaces the state.
   * @throws FishyError when a tensor is missing, left over, or of another type or shape.
   */
  restore(state: TrainingState, source: string): void {
    restoreInto(this.model, state.model, source);
    restoreInto(this.optimizer, state.optimizer, source);
  }
}

function tensorOf({ type, dims, data }: NamedTensor): NamedTensor {
  return { type, dims, data };
}

function restoreInto(
  buffers: ReadonlyMap<string, DoubleBuffer>,
  tensors: ReadonlyMap<string, NamedTensor>,
  source: string,
): void {
  for (const name of tensors.keys()) {
    if (!buffers.has(name)) {
      throw new FishyError(
        `${source} holds '${name}', which this run does not have. Its model or optimizer is another one.`,
      );
    }
  }
  for (const [name, { current }] of buffers) {
    const tensor = tensors.get(name);
    if (!tensor)
      throw new FishyError(`${source} lacks '${name}', which this run has. Its model or optimizer is another one.`);
    if (tensor.type !== current.type || tensor.dims.join() !== current.dims.join()) {
      throw new FishyError(
        `${source}: '${name}' is ${dataTypeName(tensor.type)} [${tensor.dims.join(", ")}], but this run has ${dataTypeName(current.type)} [${current.dims.join(", ")}].`,
      );
    }
    (current.data as Float32Array).set(tensor.data as Float32Array);
  }
}
