/** A run's parameters as files for other programs: a checkpoint of ONNX Runtime's training API, or safetensors. */
import { existsSync } from "node:fs";
import type { OptimizerGroup } from "../artifacts/checkpoint.js";
import { type CheckpointContents, writeCheckpoint } from "../artifacts/checkpoint-writer.js";
import { provenanceOf } from "../artifacts/provenance.js";
import { encodeSafetensors, type NamedTensor } from "../data/safetensors.js";
import { FishyError } from "../errors.js";
import { readTensor } from "../onnx/external.js";
import { loadModel, type OnnxModel } from "../onnx/model-file.js";
import { DataType, type TensorProto } from "../onnx/proto.js";
import { dimsOf, elementCount } from "../onnx/tensor.js";
import { averagedCheckpoint } from "./averages.js";
import { loadCheckpoint, type Position, writeFileAtomically } from "./checkpoint.js";
import { replaceInitializers } from "./export.js";
import { RunDirectory } from "./run-directory.js";
import { toProto } from "./source.js";
import type { TrainingState } from "./state.js";

/** Which values of the parameters are exported. */
export interface ParameterExportOptions {
  /** Which checkpoint's parameters; default that of the best evaluation when the run keeps it, else the newest. */
  readonly checkpoint?: string;
  /** Take the running averages of the parameters (`averageDecay`); default whether the run evaluated them. */
  readonly averaged?: boolean;
}

interface TrainedModel {
  readonly run: RunDirectory;
  /** With the trained values. */
  readonly model: OnnxModel;
  readonly position: Position;
  readonly state: TrainingState;
  readonly trainable: readonly string[];
  readonly frozen: readonly string[];
}

/**
 * Writes the parameters of a run as a checkpoint that ONNX Runtime 1.17 to 1.19 load, with the moments and the step when
 * the run's optimizer was Adam or AdamW.
 * @throws FishyError when the folder holds no run, no checkpoint yet, or a run without its source model.
 */
export async function exportCheckpoint(
  directory: string,
  path: string,
  options: ParameterExportOptions = {},
): Promise<void> {
  const trained = await openTrained(directory, options);
  const { model, trainable, frozen, position } = trained;
  const tensors = new Map(model.proto.graph.initializer.map((tensor) => [tensor.name ?? "", tensor]));
  const pick = (names: readonly string[]) =>
    new Map(
      names.flatMap((name): [string, TensorProto][] => {
        const tensor = tensors.get(name);
        return tensor ? [[name, tensor]] : [];
      }),
    );
  const contents: CheckpointContents = {
    trainable: pick(trainable),
    frozen: pick(frozen),
    optimizerGroups: optimizerGroups(trained),
    properties: new Map([["fishy_step", BigInt(position.step)]]),
    directory: model.directory,
  };
  await writeCheckpoint(path, contents);
}

/**
 * Writes the parameters and running statistics of a run as safetensors.
 * @throws FishyError: see `exportCheckpoint`.
 */
export async function exportSafetensors(
  directory: string,
  path: string,
  options: ParameterExportOptions = {},
): Promise<void> {
  const { model, trainable, frozen } = await openTrained(directory, options);
  const names = new Set([...trainable, ...frozen]);
  const tensors = new Map<string, NamedTensor>();
  for (const tensor of model.proto.graph.initializer) {
    if (!names.has(tensor.name ?? "")) continue;
    const data = await readTensor(model, tensor);
    tensors.set(tensor.name ?? "", { type: tensor.dataType as DataType, dims: dimsOf(tensor), data });
  }
  writeFileAtomically(path, encodeSafetensors(tensors));
}

async function openTrained(directory: string, options: ParameterExportOptions): Promise<TrainedModel> {
  const run = new RunDirectory(directory);
  const { averaged = run.readOptions().run.averaged ?? false } = options;
  const checkpoint = options.checkpoint ?? run.bestCheckpoint();
  if (!existsSync(run.sourceFile)) {
    throw new FishyError(
      `The run ${directory} was started from a training program, which does not say all of its source's parameters. Train the source model instead.`,
    );
  }
  const { state, position } = loadCheckpoint(checkpoint);
  const source = await loadModel(run.sourceFile);
  const { manifest } = await run.readProgram();
  const values = averaged ? averagedCheckpoint(state, manifest.parameters, checkpoint) : state.model;
  const model = { ...source, proto: replaceInitializers(source.proto, values) };
  const provenance = provenanceOf(model.proto);
  const statistics = manifest.runningStatistics.map(({ name }) => name);
  const trainable = provenance?.trainable ?? manifest.parameters.map(({ name }) => name);
  const frozen = provenance?.frozen ?? [...manifest.frozen, ...statistics];
  return { run, model, position, state, trainable, frozen };
}

/** Adam's state in ONNX Runtime's words; none when another optimizer trained. */
function optimizerGroups({ run, model, position, state, trainable }: TrainedModel): OptimizerGroup[] {
  const { optimizer } = run.readOptions().run;
  if (optimizer?.name !== "adam" && optimizer?.name !== "adamw") return [];
  const dims = new Map(model.proto.graph.initializer.map((tensor) => [tensor.name ?? "", dimsOf(tensor)]));
  const moment = (parameter: string, kind: string, name: string): TensorProto => {
    const own = state.optimizer.get(`${parameter}/${kind}`);
    if (own) return toProto(name, own);
    // A parameter that the run left alone has had no gradient.
    const shape = dims.get(parameter) ?? [];
    return toProto(name, { type: DataType.FLOAT, dims: shape, data: new Float32Array(elementCount(shape)) });
  };
  return [
    {
      name: "group0",
      step: (run.readMoments()?.steps ?? 0) + position.step,
      learningRate: Number(optimizer.learningRate ?? 1e-3),
      moments: new Map(
        trainable.map((parameter) => [
          parameter,
          new Map([
            ["momentum0", moment(parameter, "exp_avg", "momentum0")],
            ["momentum1", moment(parameter, "exp_avg_sq", "momentum1")],
          ]),
        ]),
      ),
    },
  ];
}
