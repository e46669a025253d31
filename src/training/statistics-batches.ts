/** Batches for the statistics alone, from the same examples as the gradient's but in an order of their own. */
import type { Batch, BatchSource } from "../data/source.js";
import type { TensorData } from "../onnx/tensor.js";
import type { Optimizer } from "../optimizers/optimizer.js";

/**
 * The k-th update of the statistics takes the k-th batch of the source, epoch after epoch: which one that is depends on
 * the step alone, so that a resumed run takes the same.
 */
export class StatisticsBatches {
  private iterator: AsyncIterator<Batch> | Iterator<Batch> | undefined;
  /** The update that the iterator gives next, counted from 0, and the steps that updates were counted up to. */
  private next = -1;
  private counted = { step: 0, updates: 0 };

  constructor(
    private readonly source: BatchSource & { readonly batchesPerEpoch: number },
    private readonly optimizer: Pick<Optimizer, "schedule">,
  ) {}

  get batchSize(): number {
    return this.source.batchSize;
  }

  /** Writes the batch of a step that updates the statistics. */
  async fill(step: number, into: ReadonlyMap<string, TensorData>): Promise<void> {
    const update = this.updatesBefore(step);
    const { batchesPerEpoch } = this.source;
    const [epoch, index] = [Math.floor(update / batchesPerEpoch), update % batchesPerEpoch];
    if (update !== this.next || index === 0) {
      await this.leave();
      const batches = this.source.batches(epoch, index);
      this.iterator =
        Symbol.asyncIterator in batches
          ? batches[Symbol.asyncIterator]()
          : (batches as Iterable<Batch>)[Symbol.iterator]();
    }
    const result = await this.iterator?.next();
    if (!result || result.done) throw new Error(`the data of the statistics gave no batch ${index} of epoch ${epoch}`);
    result.value.fill(into);
    this.next = update + 1;
  }

  async close(): Promise<void> {
    await this.leave();
    await this.source.close?.();
  }

  private async leave(): Promise<void> {
    await this.iterator?.return?.();
    this.iterator = undefined;
  }

  private updatesBefore(step: number): number {
    if (step - 1 < this.counted.step) this.counted = { step: 0, updates: 0 };
    let { updates } = this.counted;
    for (let done = this.counted.step + 1; done < step; done++) if (this.optimizer.schedule(done).statistics) updates++;
    this.counted = { step: step - 1, updates };
    return updates;
  }
}
