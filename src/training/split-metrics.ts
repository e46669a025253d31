/** The metrics of a step that two devices take. */
import { DataType } from "../onnx/proto.js";
import { allocateBuffer, type Buffer } from "../runtime/buffers.js";
import type { Runtime, Tensor } from "../runtime/ort.js";
import type { EngineOptions, StepOutcome } from "./engine.js";

/** Buffers by metric, kept from step to step. */
export class MetricBuffers {
  private readonly buffers = new Map<string, Buffer>();

  constructor(
    private readonly ort: Runtime,
    private readonly optimizer: EngineOptions["optimizer"],
  ) {}

  of(name: string): Buffer {
    let buffer = this.buffers.get(name);
    if (!buffer) {
      const blocks = this.optimizer.blocks?.get(name)?.length;
      buffer = allocateBuffer(this.ort, DataType.FLOAT, blocks === undefined ? [] : [blocks], `metric '${name}'`);
      this.buffers.set(name, buffer);
    }
    return buffer;
  }
}

/** The metrics of one step: those that the first device fetches, and those that the second tells. */
export class SplitMetrics {
  private readonly fetched = new Set<string>();
  private readonly told = new Map<string, readonly number[]>();

  constructor(
    private readonly buffers: MetricBuffers,
    private readonly optimizer: EngineOptions["optimizer"],
  ) {}

  /** Fetches graph outputs by metric. */
  fetch(outputs: ReadonlyMap<string, string>, fetches: Record<string, Tensor>): void {
    for (const [name, output] of outputs) {
      this.fetched.add(name);
      fetches[output] = this.buffers.of(name).tensor;
    }
  }

  add(name: string, values: readonly number[]): void {
    this.told.set(name, values);
  }

  read(): Pick<StepOutcome, "metrics" | "blockMetrics"> {
    const all = new Map(this.told);
    for (const name of this.fetched) all.set(name, [...(this.buffers.of(name).data as Float32Array)]);
    const { blocks } = this.optimizer;
    const [metrics, blockMetrics] = [{} as Record<string, number>, {} as Record<string, readonly number[]>];
    for (const [name, values] of all) {
      if (blocks?.has(name)) blockMetrics[name] = values;
      else metrics[name] = values[0] as number;
    }
    return { metrics, blockMetrics };
  }
}
