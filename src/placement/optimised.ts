/** A model as ONNX Runtime sees it when it places nodes: constants folded, functions without a kernel inlined. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FishyError, messageOf } from "../errors.js";
import { decodeModel, encodeModel } from "../onnx/codec.js";
import type { ModelProto } from "../onnx/proto.js";
import { loadRuntime } from "../runtime/ort.js";

/**
 * @param fold whether constants are folded, as they are before nodes are placed; otherwise functions alone are inlined.
 * @throws FishyError when ONNX Runtime refuses the model.
 */
export async function asOptimised(model: ModelProto, fold: boolean): Promise<ModelProto> {
  const ort = await loadRuntime();
  const folder = mkdtempSync(join(tmpdir(), "fishy-placement-"));
  try {
    const file = join(folder, "optimised.onnx");
    const session = await ort.InferenceSession.create(encodeModel(model), {
      graphOptimizationLevel: fold ? "basic" : "disabled",
      optimizedModelFilePath: file,
      intraOpNumThreads: 1,
      logSeverityLevel: 4,
    });
    await session.release();
    return decodeModel(readFileSync(file));
  } catch (error) {
    throw new FishyError(`ONNX Runtime cannot load the model to place its nodes: ${messageOf(error)}`);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
