/**
 * fishy: second-order training for ONNX models.
 *
 * `loadModel` → `rewrite` (with `planSections` to look first) → `train`; `createOptimizer` for the optimizers alone,
 * `exportModel` for the trained model.
 *
 * @packageDocumentation
 */
// Set before the runtime loads: official builds of ONNX Runtime upload usage data otherwise.
process.env.ORT_DISABLE_TELEMETRY ??= "1";

export type { ArtifactFiles } from "./artifacts/artifact-files.js";
export { type ArtifactOptions, type LoadedArtifacts, loadArtifacts } from "./artifacts/load.js";
export type { ChunkedDataset } from "./data/chunked.js";
export type { Scale } from "./data/convert.js";
export type { Column, Dataset } from "./data/dataset.js";
export { loadDataset, type OpenOptions, openDataset } from "./data/load.js";
export type { NormalizeOptions } from "./data/normalize.js";
export type { OpenStream, StreamBatch } from "./data/stream.js";
export { FishyError, UsageError } from "./errors.js";
export type { Draw, Family, Moments, ScalarFamily, Score } from "./families/family.js";
export { familyByName } from "./families/registry.js";
export { LOSS_NAMES, type LossName } from "./losses/loss.js";
export { loadModel, type OnnxModel, type SavedModel, type SaveOptions, saveModel } from "./onnx/model-file.js";
export type { OperatorCount } from "./onnx/opcount.js";
export type { DataType, ModelProto } from "./onnx/proto.js";
export type { TensorData } from "./onnx/tensor.js";
export type { Optimizer, ParameterSpec } from "./optimizers/optimizer.js";
export { createOptimizer, OPTIMIZER_NAMES, type OptimizerName, type OptimizerOptions } from "./optimizers/registry.js";
export type { RunLength } from "./optimizers/schedules.js";
export type { NamedRun, ReportData, ReportOption, ReportRun, RunReference } from "./report/collect.js";
export { Dashboard, type DashboardOptions } from "./report/dashboard.js";
export { writeReport } from "./report/report.js";
export {
  type Difference,
  diffModels,
  type ModelDiff,
  type NodeDifference,
  type ParameterDifference,
} from "./rewrite/diff.js";
export { editablePlan } from "./rewrite/editable-plan.js";
export { inspectModel, type LayerDescription, type ModelDescription } from "./rewrite/inspect.js";
export type {
  Manifest,
  ManifestBoundary,
  ManifestLoss,
  ManifestParameter,
  ManifestSection,
  ProgramDraw,
  TrainingProgram,
} from "./rewrite/manifest.js";
export {
  type Cost,
  type ModelOutline,
  type OutlineBoundary,
  type OutlinePart,
  outlineModel,
} from "./rewrite/outline.js";
export { planSections, type RewriteOptions, rewrite } from "./rewrite/rewrite.js";
export type { Boundary, Section, SectionPlan } from "./sections/plan.js";
export { parsePlan } from "./sections/plan-file.js";
export { type PlannedBoundary, parseSections, type SectionSpec } from "./sections/spec.js";
export {
  type ArrayOptimizer,
  type ArrayParameter,
  type ArrayStepResult,
  createArrayOptimizer,
  type Gradients,
} from "./training/array-optimizer.js";
export { type Best, METRICS, type Metric } from "./training/best.js";
export { type EvaluateOptions, type EvaluateResult, evaluate } from "./training/evaluate.js";
export type { Evaluation } from "./training/evaluator.js";
export { type ExportOptions, exportModel } from "./training/export.js";
export { exportCheckpoint, exportSafetensors, type ParameterExportOptions } from "./training/export-parameters.js";
export {
  type Initialized,
  type InitializedParameter,
  type InitializeOptions,
  initializeParameters,
} from "./training/init/initialize.js";
export { parseScheme, type Scheme } from "./training/init/schemes.js";
export type { Outcome } from "./training/loop.js";
export type { StepRecord } from "./training/metrics.js";
export { Progress, type ProgressOptions } from "./training/progress.js";
export type { OptimizerFactory, RunEvents, RunPlan } from "./training/run.js";
export type { MemoryData } from "./training/run-data.js";
export type { TrainingState } from "./training/state.js";
export {
  type FollowOptions,
  type MemoryModel,
  type ResumeOptions,
  resume,
  type TrainOptions,
  type TrainResult,
  train,
} from "./training/train.js";
export type { Job } from "./tuning/halving.js";
export type { Objective } from "./tuning/objective.js";
export type { Dimension, SearchSpace, Value, Values } from "./tuning/space.js";
export type { TrialResult } from "./tuning/study.js";
export { type HalvingOptions, type TuneOptions, type TunePlan, type TuneResult, tune } from "./tuning/tune.js";
