/** What a run keeps of its state: checkpoints at their times, and that of the best evaluation. */
import { isFloat } from "../data/convert.js";
import { FishyError, messageOf } from "../errors.js";
import type { TensorData } from "../onnx/tensor.js";
import { averagedModel } from "./averages.js";
import { type Best, BestFollower } from "./best.js";
import { checkpointPath, loadCheckpoint, type Position, pruneCheckpoints, saveCheckpoint } from "./checkpoint.js";
import type { Evaluation } from "./evaluator.js";
import type { Fingerprint } from "./fingerprint.js";
import { DIVERGENCE_ADVICE, type DivergenceError } from "./loop.js";
import type { ResolvedRunOptions } from "./options.js";
import type { RunDirectory } from "./run-directory.js";
import type { StateBuffers, TrainingState } from "./state.js";

export interface SaverOptions {
  readonly state: StateBuffers;
  /** Where checkpoints go; none are written without. */
  readonly directory: RunDirectory | undefined;
  readonly fingerprint: Fingerprint;
  /** The state that takes the parameters' place in the trained model, by parameter: their averages. */
  readonly averages?: ReadonlyMap<string, string> | undefined;
  readonly options: Pick<ResolvedRunOptions, "keepBest" | "patience" | "metric" | "minDelta" | "keepCheckpoints">;
  /** The best evaluation before a resumed run's first step. */
  readonly best: Best | undefined;
  /** Called before a checkpoint is written. */
  onSave(): void;
}

export class Saver {
  private readonly follower: BestFollower | undefined;
  private savedStep = -1;
  /** The state of the best evaluation, where no checkpoint holds it. */
  private bestState: TrainingState | undefined;

  constructor(private readonly parts: SaverOptions) {
    const { options, best } = parts;
    if (options.keepBest || options.patience !== undefined) this.follower = new BestFollower(options, best);
  }

  /** The best evaluation so far, where the run looks for it. */
  get best(): Best | undefined {
    return this.follower?.best;
  }

  /** Whether the evaluations have ended the run. */
  get isOver(): boolean {
    return this.follower?.isOver ?? false;
  }

  /** Learns of an evaluation, and keeps the state when it is the best. @returns whether the run is over. */
  evaluated(position: Position, evaluation: Evaluation): boolean {
    const isBest = this.follower?.update(position.step, evaluation) ?? false;
    if (isBest && this.parts.options.keepBest) {
      if (this.parts.directory) this.save(position);
      else this.bestState = copyOf(this.parts.state.tensors());
    }
    return this.isOver;
  }

  /**
   * Writes a checkpoint, once for each step.
   * @returns its path; undefined without a folder.
   * @throws FishyError when a parameter or running statistic is not finite.
   */
  save(position: Position): string | undefined {
    const { directory, state, fingerprint, options } = this.parts;
    if (!directory) return undefined;
    const path = checkpointPath(directory.path, position.step);
    if (this.savedStep === position.step) return path;
    this.parts.onSave();
    const broken = brokenTensor(state);
    if (broken !== undefined) {
      throw new FishyError(
        `After step ${position.step} '${broken}' is not finite, so the state was not saved. Checkpoints of earlier steps are whole. ${DIVERGENCE_ADVICE}`,
      );
    }
    const { best } = this;
    const checkpoint = { position: { ...position, ...(best && { best }) }, state: state.tensors() };
    saveCheckpoint(directory.path, checkpoint, fingerprint);
    this.savedStep = position.step;
    pruneCheckpoints(directory.path, options.keepCheckpoints, options.keepBest ? best?.step : undefined);
    return path;
  }

  /** After a loss that is not finite: the error, with where the state before it lies when it could be saved. */
  rescue(error: DivergenceError): FishyError {
    try {
      const path = this.save(error.position);
      return new FishyError(
        `${error.message}${path === undefined ? "" : ` The state before that step is in ${path}.`}`,
      );
    } catch (failure) {
      return new FishyError(`${error.message} ${messageOf(failure)}`);
    }
  }

  /** The state that the run ends with: that of the best evaluation when it is kept, else the newest. */
  kept(): TrainingState {
    const { directory, state, options } = this.parts;
    if (!directory) return this.bestState ?? state.tensors();
    const kept = options.keepBest ? directory.bestCheckpoint() : undefined;
    const isNewest = kept === undefined || kept === checkpointPath(directory.path, this.savedStep);
    return isNewest ? state.tensors() : loadCheckpoint(kept).state;
  }

  /** Parameters and running statistics of the trained model in a state. */
  modelOf(state: TrainingState): TrainingState["model"] {
    const { averages } = this.parts;
    return averages ? averagedModel(state, averages) : state.model;
  }
}

function copyOf({ model, optimizer }: TrainingState): TrainingState {
  const copies = (tensors: TrainingState["model"]) =>
    new Map([...tensors].map(([name, tensor]) => [name, { ...tensor, data: tensor.data.slice() as TensorData }]));
  return { model: copies(model), optimizer: copies(optimizer) };
}

/** The first parameter or running statistic that holds NaN or an infinity. */
function brokenTensor(state: StateBuffers): string | undefined {
  for (const [name, { current }] of state.model) {
    if (isFloat(current.type) && !(current.data as Float32Array).every(Number.isFinite)) return name;
  }
  return undefined;
}
