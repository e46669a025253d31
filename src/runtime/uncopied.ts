/**
 * Runs whose outputs are not copied. The Node binding lets the runtime write into preallocated outputs, and then copies
 * each of them into a new array as well, which nobody reads: 75 MB for a step of Adam with 6.3 million parameters, a
 * quarter of the step's time. It converts outputs in the graph's order, after the run, and refuses sequences; so a graph
 * whose first output is an empty sequence ends with that refusal when all preallocated outputs are written and before
 * the first is copied. Whether the binding behaves so is tried once in a process; where it does not, outputs are copied.
 */
import { messageOf } from "../errors.js";
import { emptyGraph } from "../onnx/builder.js";
import { encodeModel } from "../onnx/codec.js";
import { takenNames } from "../onnx/graph.js";
import { DataType, type GraphProto, type ModelProto } from "../onnx/proto.js";
import { loadRuntime, tensorOver } from "./ort.js";

/** The first version of the operator set that has SequenceEmpty. */
const SEQUENCES_SINCE = 11;

/** A model that has the sequence as its first output. */
export interface UncopiedModel {
  readonly model: ModelProto;
  /** The output to ask for besides the preallocated ones. */
  readonly marker: string;
  /** The message of the error with which a run ends that did all its work. */
  readonly refusal: string;
}

/** The model with the sequence before its outputs; undefined where the binding or the operator set does not allow it. */
export async function uncopied(model: ModelProto): Promise<UncopiedModel | undefined> {
  const version = model.opsetImport.find(({ domain }) => !domain || domain === "ai.onnx")?.version ?? 0;
  if (Number(version) < SEQUENCES_SINCE) return undefined;
  const refusal = await bindingRefusal();
  return refusal === undefined ? undefined : { ...withMarker(model), refusal };
}

function withMarker(model: ModelProto): { model: ModelProto; marker: string } {
  const { graph } = model;
  const taken = takenNames(graph);
  let marker = "written";
  while (taken.has(marker)) marker += "'";
  const elemType = { tensorType: { elemType: DataType.FLOAT } };
  const marked: GraphProto = {
    ...graph,
    node: [...graph.node, { opType: "SequenceEmpty", name: marker, input: [], output: [marker], attribute: [] }],
    output: [{ name: marker, type: { sequenceType: { elemType } } }, ...graph.output],
  };
  return { model: { ...model, graph: marked }, marker };
}

let trying: Promise<string | undefined> | undefined;

/** What the binding says when it refuses a sequence after the run; undefined where it does not. */
function bindingRefusal(): Promise<string | undefined> {
  trying ??= tryBinding();
  return trying;
}

/** Runs y = −x with the sequence before y, and looks whether the run ended with an error and with y written. */
async function tryBinding(): Promise<string | undefined> {
  const ort = await loadRuntime();
  const type = { tensorType: { elemType: DataType.FLOAT, shape: { dim: [{ dimValue: 1 }] } } };
  const { model, marker } = withMarker({
    ...{ irVersion: 8, opsetImport: [{ domain: "", version: 18 }], metadataProps: [], trainingInfo: [], functions: [] },
    graph: {
      ...emptyGraph("binding"),
      node: [{ opType: "Neg", name: "neg", input: ["x"], output: ["y"], attribute: [] }],
      input: [{ name: "x", type }],
      output: [{ name: "y", type }],
    },
  });
  const session = await ort.InferenceSession.create(encodeModel(model), { intraOpNumThreads: 1, logSeverityLevel: 4 });
  const y = Float32Array.of(0);
  try {
    const over = (data: Float32Array, name: string) => tensorOver(ort, DataType.FLOAT, [1], data, name);
    await session.run({ x: over(Float32Array.of(3), "x") }, { [marker]: null, y: over(y, "y") });
    return undefined;
  } catch (error) {
    return y[0] === -3 ? messageOf(error) : undefined;
  } finally {
    await session.release();
  }
}
