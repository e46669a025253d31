/** The versions of ONNX that fishy reads and writes. */
import type { ModelProto, OperatorSetId } from "./proto.js";
import { toNumber } from "./tensor.js";

/** The newest IR version whose meaning the schema knows and ONNX Runtime 1.30 loads. */
export const NEWEST_IR = 13;

/** The opset of the default domain that training programs are written in. */
export const PROGRAM_OPSET = 18;

/** The IR version that came with opset 18; 10 when node metadata is kept. */
export const PROGRAM_IR = 8;

/** Default-domain opsets that can be brought to the program's opset. */
export const OLDEST_OPSET = 9;
export const NEWEST_OPSET = 26;

/** The default domain has two spellings. */
export function isDefaultDomain(domain: string | undefined): boolean {
  return !domain || domain === "ai.onnx";
}

/** The imported version of the default domain; undefined when it is not imported. */
export function defaultOpset(imports: readonly OperatorSetId[]): number | undefined {
  const found = imports.find((entry) => isDefaultDomain(entry.domain));
  return found && toNumber(found.version);
}

/** The opset of a model that `loadModel` has accepted. */
export function opsetOf(model: ModelProto): number {
  const opset = defaultOpset(model.opsetImport);
  if (opset === undefined) throw new Error("the model imports no opset of the default domain");
  return opset;
}
