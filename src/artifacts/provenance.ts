/** What a model that came from training artifacts remembers of them, in its metadata: to go back. */
import { FishyError } from "../errors.js";
import { withFields } from "../onnx/codec.js";
import { GraphIndex } from "../onnx/graph.js";
import type { GraphProto, ModelProto } from "../onnx/proto.js";

const KEY = "fishy.artifacts";

export interface Provenance {
  /** The output that is the loss. */
  readonly loss: string;
  /** What an inference model returns: the model's own outputs before the loss was put on. */
  readonly outputs: readonly string[];
  readonly trainable: readonly string[];
  readonly frozen: readonly string[];
  /** Steps done before, by the optimizer whose moments the run starts from; 0 without. */
  readonly steps: number;
}

export function withProvenance(model: ModelProto, provenance: Provenance): ModelProto {
  const metadataProps = model.metadataProps.filter(({ key }) => key !== KEY);
  return withFields(model, { metadataProps: [...metadataProps, { key: KEY, value: JSON.stringify(provenance) }] });
}

/** @returns undefined for a model that came from elsewhere. @throws FishyError when the metadata is damaged. */
export function provenanceOf(model: ModelProto): Provenance | undefined {
  const value = model.metadataProps.find(({ key }) => key === KEY)?.value;
  if (value === undefined) return undefined;
  try {
    return JSON.parse(value) as Provenance;
  } catch {
    throw new FishyError(`The model's metadata '${KEY}' is not JSON. Start again from the training artifacts.`);
  }
}

/** Names that `onnxblock` makes for a loss's nodes and values: `onnx::loss::2`, `onnx::ReduceMean::12`. */
const BLOCK_NAME = /^onnx::[\w.]+::\d+$/;

/**
 * The outputs that the model had before its loss was put on: those that older files list in their metadata, otherwise
 * what the loss's nodes read, and the further outputs that were asked for.
 */
export function inferenceOutputs(model: ModelProto, graph: GraphProto, loss: string): string[] {
  const listed = model.metadataProps.find(({ key }) => key === "InferenceGraphOutputs")?.value;
  const index = new GraphIndex(graph);
  const isMade = (name: string) => index.producer(name) !== undefined;
  if (listed?.split(",").every(isMade)) return listed.split(",");
  const outputs: string[] = [];
  const visited = new Set<string>();
  const visit = (name: string): void => {
    const node = index.producer(name);
    if (visited.has(name) || !node) return;
    visited.add(name);
    if (name === loss || BLOCK_NAME.test(name)) for (const input of node.input) visit(input);
    else if (node.opType !== "Constant") outputs.push(name);
  };
  visit(loss);
  const further = graph.output.map(({ name = "" }) => name).filter((name) => name !== loss);
  return [...new Set([...outputs, ...further])];
}
