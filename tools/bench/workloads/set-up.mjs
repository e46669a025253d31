/** A work as fishy computes it: its training program, an optimizer, and its batch. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createOptimizer, loadModel, rewrite } from "../../../dist/index.js";

const SHAMPOO = { statisticsInterval: 10, rootInterval: 20, learningRate: 1e-5 };
/** Those of pytorch.py's optimizers, whose block size, intervals and momenta the caller chooses. */
const GOOGLE = { preset: "google", blockSize: 1024, mergeLimit: 1024, skipRankBelow: 2, startStep: 1 };
/** A ridge of 1e-12, not relative, is one that eigenvalues allow and that coupled iterations retry until it is larger. */
const META = { preset: "meta", epsilon: 1e-6, epsilonKind: "relative", rootInterval: 20, learningRate: 1e-5 };
const OPTIMIZERS = {
  adam: { options: { name: "adam", learningRate: 1e-5 }, sections: "none" },
  shampoo: { options: { name: "shampoo", ...SHAMPOO }, sections: "none" },
  "shampoo-google": { options: { name: "shampoo", ...GOOGLE, ...SHAMPOO }, sections: "none" },
  "shampoo-meta": { options: { name: "shampoo", ...META }, sections: "none" },
  "fim-shampoo": { options: { name: "fim-shampoo", ...SHAMPOO }, sections: "output" },
  fishy: { options: { name: "fishy", ...SHAMPOO }, sections: "per-layer" },
};
const SECTIONS = { gradients: "none", forward: "none", sampled: "per-layer", fisher: "output" };

/**
 * @param folder what `writeWork` wrote.
 * @param mode an optimizer; `gradients` (forward and backward), `forward`, or `sampled` and `fisher` (sampled gradients
 *   besides, of every section or from the output alone).
 * @param rewriteOptions more options of the rewriting; draws are fast ones unless `draw` says otherwise.
 */
export async function setUp(folder, mode, rewriteOptions = {}) {
  const work = JSON.parse(readFileSync(join(folder, "work.json"), "utf8"));
  const bytes = (name) => new Uint8Array(readFileSync(join(folder, name))).buffer;
  const { proto } = await loadModel(join(folder, "model.onnx"));
  const chosen = OPTIMIZERS[mode];
  const program = await rewrite(proto, {
    loss: work.loss,
    sections: { kind: chosen?.sections ?? SECTIONS[mode] },
    ...(work.classes === undefined && { targetInput: "x" }),
    draw: "fast",
    ...rewriteOptions,
  });
  const parameters = program.manifest.parameters.map(({ name, dims }) => ({ name, dims }));
  const optimizer = chosen ? createOptimizer(chosen.options, parameters) : collector(mode, parameters);
  const columns = new Map([["x", work.tokens ? new BigInt64Array(bytes("x.bin")) : new Float32Array(bytes("x.bin"))]]);
  const inputs = [{ name: "x", type: work.tokens ? 7 : 1, dims: work.dims }];
  if (work.classes) {
    columns.set("labels", new BigInt64Array(bytes("labels.bin")));
    inputs.push({ name: "labels", type: 7, dims: [] });
  }
  const batch = {
    size: work.batch,
    fill(into) {
      for (const [name, data] of into) data.set(columns.get(name));
    },
  };
  return { work, program, optimizer, inputs, batch, batchSize: work.batch, seed: 1 };
}

/** An optimizer that updates nothing and keeps the gradients: what it costs is the forward and backward pass. */
export function collector(kind, parameters) {
  const wanted = kind === "forward" ? [] : parameters;
  const state = [];
  const add = (suffix) => {
    for (const { name, dims } of wanted) {
      state.push({
        name: `${name}/${suffix}`,
        type: 1,
        dims,
        init: () => new Float32Array(dims.reduce((a, b) => a * b, 1)),
      });
    }
  };
  add("gradient");
  if (kind === "sampled" || kind === "fisher") add("sampled");
  return {
    ...{ name: "collector", parameters, state, statisticsSource: "sampled", hyperparameters: () => ({}) },
    schedule: () => ({ statistics: false, roots: false }),
    emitUpdate: (_, values) => ({
      parameters: new Map(),
      state: new Map(
        state.map(({ name }) => {
          const at = name.lastIndexOf("/");
          const parameter = name.slice(0, at);
          const sampled = name.slice(at + 1) === "sampled";
          return [name, sampled ? values.statisticsGradient(parameter) : values.gradient(parameter)];
        }),
      ),
    }),
  };
}
