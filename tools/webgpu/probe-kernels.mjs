/**
 * Loads models on WebGPU without fallback, one after the other, and appends `FILE<tab>VERDICT` to a file for each. Started
 * by kernels.mjs in a process of its own: a driver may take the process down with it.
 *
 *     node tools/webgpu/probe-kernels.mjs FOLDER FROM RESULTS
 */
import { appendFileSync, readdirSync } from "node:fs";
import { join } from "node:path";

process.env.ORT_DISABLE_TELEMETRY ??= "1";
const { InferenceSession } = await import("onnxruntime-node");
const [folder, from, results] = process.argv.slice(2);
for (const file of readdirSync(folder).sort().slice(Number(from))) {
  let verdict = "runs";
  try {
    const session = await InferenceSession.create(join(folder, file), {
      executionProviders: ["webgpu"],
      graphOptimizationLevel: "disabled",
      logSeverityLevel: 4,
      // Values of session options are strings here; anything else is ignored.
      extra: { session: { disable_cpu_ep_fallback: "1" } },
    });
    await session.release();
  } catch (error) {
    const { message } = error;
    if (/fallback to CPU EP has been explicitly disabled/.test(message)) verdict = "falls back";
    else if (/Could not find an implementation/.test(message)) verdict = "no kernel anywhere";
    else verdict = `refused: ${message.replaceAll(/\s+/g, " ").slice(0, 300)}`;
  }
  appendFileSync(results, `${file}\t${verdict}\n`);
}
