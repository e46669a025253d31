/**
 * Whether a device computes what the CPU computes.
 *
 *     node tools/gpu/correctness.mjs [--device NAME] [--threads N] [--models autoencoder_tanh,cnn,…]
 *
 * Prints one line of JSON for each check: gradients against PyTorch's own in float64, the same samples from the same seed,
 * twenty steps of every optimizer beside the CPU's (single steps and steps in groups), and gradients in half precision.
 * Exit code 1 when a check failed.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { decodeSafetensors } from "../../dist/data/safetensors.js";
import { createOptimizer, loadModel, rewrite } from "../../dist/index.js";
import { CPU, parseDevice } from "../../dist/runtime/devices.js";
import { createEngine } from "../../dist/training/engines.js";
import { checkPrecision } from "../../dist/training/precision.js";
import { collector } from "../bench/workloads/set-up.mjs";

const { values } = parseArgs({
  options: {
    device: { type: "string", default: "cpu" },
    threads: { type: "string", default: "0" },
    models: { type: "string" },
  },
});
const device = parseDevice(values.device);
const threads = Number(values.threads);
const GRAPHS = join(import.meta.dirname, "../../graphs/pytorch");
const MODELS = {
  autoencoder_tanh: "sigmoid-cross-entropy",
  cnn: "softmax-cross-entropy",
  resnet_small: "softmax-cross-entropy",
  transformer_encoder: "softmax-cross-entropy",
};
const STEPS = 20;
// Ridges at which roots in float32, as on WebGPU, are those of float64. Smaller epsilons of Adam, and of the graft, magnify
// gradients that are zero but for rounding, such as that of the keys' bias in attention.
const SECOND = { rootInterval: 5, startStep: 2, blockSize: 64, learningRate: 1e-3, epsilon: 1e-4, graftEpsilon: 1e-4 };
const OPTIMIZERS = {
  adam: { name: "adam", learningRate: 1e-3, epsilon: 1e-4 },
  shampoo: { name: "shampoo", ...SECOND },
  "fim-shampoo": { name: "fim-shampoo", ...SECOND },
  fishy: { name: "fishy", ...SECOND },
};
const SECTIONS = { "fim-shampoo": "output", fishy: "per-layer" };
/** ‖a − b‖ / ‖b‖, of gradients in float32, of parameters after the steps, and of gradients in half precision. */
const TOLERANCE = { gradients: 1e-4, samples: 1e-4, steps: 1e-4, half: 0.03 };

/**
 * Some paths are chaotic: steps may differ by ten times as much as the CPU's own do when its data are multiplied by 1 + SHAKE,
 * three units in the last place.
 */
const SHAKE = 3e-7;

let failures = 0;
function report(check, model, error, tolerance, more = {}) {
  const passed = error <= tolerance;
  if (!passed) failures++;
  process.stdout.write(`${JSON.stringify({ check, model, ...more, error, tolerance, passed })}\n`);
}

function relative(a, b) {
  let [difference, norm] = [0, 0];
  for (let i = 0; i < b.length; i++) {
    difference += (Number(a[i]) - Number(b[i])) ** 2;
    norm += Number(b[i]) ** 2;
  }
  return Math.sqrt(norm > 0 ? difference / norm : difference);
}

const worst = (errors) => errors.reduce((a, b) => (b > a || Number.isNaN(b) ? b : a), 0);

/** A model with the batch of its golden file. */
async function openModel(name) {
  const folder = join(GRAPHS, name);
  const { proto } = await loadModel(join(folder, "model.onnx"));
  const { tensors } = decodeSafetensors(readFileSync(join(folder, "golden.safetensors")), name);
  return { name, proto, tensors, loss: MODELS[name] };
}

/** Runs steps of an optimizer on the golden batch. @returns the engine's state. */
async function trained(model, kind, options) {
  const { proto, tensors, loss } = model;
  const program = await rewrite(proto, { loss, sections: { kind }, draw: options.draw ?? "exact" });
  const { parameters, loss: manifestLoss } = program.manifest;
  const inputs = [];
  const columns = new Map();
  let batchSize = 0;
  for (const [key, { type, dims, data }] of tensors) {
    if (key !== "target" && !key.startsWith("input/")) continue;
    const name = key === "target" ? manifestLoss.target : key.slice(6);
    inputs.push({ name, type: type === 7 ? 7 : 1, dims: dims.slice(1) });
    columns.set(name, type === 7 ? data : Float32Array.from(data, (value) => value * (1 + (options.shake ?? 0))));
    batchSize = dims[0];
  }
  const batch = {
    size: batchSize,
    fill(into) {
      for (const [name, array] of into) array.set(columns.get(name));
    },
  };
  const { steps, optimizer, draw: _, shake: __, ...engineOptions } = options;
  const engine = await createEngine({
    ...{ program, inputs, batchSize, seed: 7, threads, totalSteps: steps },
    ...engineOptions,
    optimizer: optimizer(parameters),
  });
  for (let done = 0; done < steps; ) {
    const count = Math.min(engine.stepsPerRun, steps - done);
    for (let slot = 0; slot < count; slot++) engine.fill(slot, batch);
    await engine.prepare(done + 1, count);
    await engine.run(done + 1, count);
    done += count;
  }
  await engine.synchronise?.();
  const { model: carried, optimizer: state } = engine.state.tensors();
  const copy = (map) => new Map([...map].map(([name, { data }]) => [name, data.slice()]));
  const result = { model: copy(carried), state: copy(state) };
  await engine.release();
  return result;
}

const single = { stepsPerRun: 1 };
for (const name of values.models?.split(",") ?? Object.keys(MODELS)) {
  const model = await openModel(name);
  const gradients = (on, more = {}) =>
    trained(model, "per-layer", {
      ...single,
      ...more,
      ...{ device: on, steps: 1, optimizer: (parameters) => collector("sampled", parameters) },
    });
  const [here, there] = [await gradients(CPU), await gradients(device)];
  const errors = (state, suffix) =>
    [...here.state.keys()]
      .filter((key) => key.endsWith(`/${suffix}`))
      .map((key) => relative(state.get(key), here.state.get(key)));
  const golden = [...model.tensors].filter(([key]) => key.startsWith("grad/"));
  report(
    "gradients against PyTorch's in float64",
    name,
    worst(golden.map(([key, { data }]) => relative(there.state.get(`${key.slice(5)}/gradient`) ?? [], data))),
    TOLERANCE.gradients,
  );
  // Other samples would differ by their own size.
  report("the same samples from the same seed", name, worst(errors(there.state, "sampled")), TOLERANCE.samples);
  for (const precision of ["float16", "bfloat16"]) {
    try {
      checkPrecision(precision, device);
    } catch {
      continue;
    }
    try {
      const half = await gradients(device, { precision });
      report(`gradients in ${precision}`, name, worst(errors(half.state, "gradient")), TOLERANCE.half);
    } catch (error) {
      if (!/no shader-f16/.test(error.message)) throw error;
      process.stderr.write(`${precision}: the adapter has no shader-f16\n`);
    }
  }
  for (const [optimizer, options] of Object.entries(OPTIMIZERS)) {
    // An exact draw jumps where the last bit of a pre-activation decides; two points seldom do.
    const make = { draw: "two-point", steps: STEPS, optimizer: (parameters) => createOptimizer(options, parameters) };
    const kind = SECTIONS[optimizer] ?? "none";
    const onCpu = { ...single, ...make, device: CPU };
    const reference = await trained(model, kind, onCpu);
    const differencesOf = ({ model: carried }) =>
      [...reference.model].map(([key, data]) => [key, relative(carried.get(key), data)]);
    const shaken = worst(differencesOf(await trained(model, kind, { ...onCpu, shake: SHAKE })).map(([, d]) => d));
    const tolerance = Math.max(TOLERANCE.steps, 10 * shaken);
    for (const stepsPerRun of device.kind === "webgpu" ? [1] : [1, 8]) {
      const differences = differencesOf(await trained(model, kind, { ...make, device, stepsPerRun }));
      const error = worst(differences.map(([, difference]) => difference));
      const [where] = differences.find(([, difference]) => Object.is(difference, error)) ?? [];
      report(`${STEPS} steps of ${optimizer}`, name, error, tolerance, { stepsPerRun, where, shaken });
    }
  }
}
process.exit(failures > 0 ? 1 : 0);
