/** Who takes part: the command of each contestant, what it computes, and what it needs. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { ALLOCATOR } from "../../dist/runtime/allocator.js";

const here = import.meta.dirname;
const node = (file, ...args) => [process.execPath, join(here, file), ...args];

/**
 * The contestants of one work.
 * @param peers the folder that tools/bench/peers/setup.mjs made, or undefined.
 * @returns `part` is what a contestant computes, `needs` a path that must exist, `env` what is set for it,
 *   `unlessAsked` the one work that it takes part in unless its part is asked for.
 */
export function contestants(folder, threads, peers) {
  const t = String(threads);
  const fishy = (part, mode, name = "fishy") => ({
    ...{ name, part, env: ALLOCATOR },
    command: node("workloads/fishy.mjs", folder, mode, t),
  });
  const python = (environment, script, part, mode, name) => {
    const interpreter = peers && join(peers, environment, "bin", "python");
    return { name, part, needs: interpreter, command: [interpreter, join(here, "peers", script), folder, mode, t] };
  };
  const torch = (part, mode, name) => python("torch", "pytorch.py", part, mode, name);
  const packaged = (part, script, name, packageName) => ({
    ...{ name, part, needs: peers && join(peers, "node_modules", packageName) },
    command: node(`peers/${script}`, folder, part, t, peers ?? ""),
  });
  const packages = peers && join(peers, "meta-shampoo");
  const meta = { needs: packages && join(packages, "distributed_shampoo"), env: { PYTHONPATH: packages ?? "" } };
  // Refreshes of the others take minutes where parameters have many blocks.
  const onlyA = { unlessAsked: "autoencoder" };
  return [
    fishy("gradients", "gradients"),
    fishy("forward", "forward"),
    fishy("sampled", "sampled"),
    fishy("fisher", "fisher"),
    torch("gradients", "eager", "PyTorch eager"),
    torch("gradients", "compile", "PyTorch compile"),
    python("ort-training", "ort_training.py", "gradients", "gradients", "onnxruntime-training"),
    packaged("gradients", "training-wasm.mjs", "training wasm", "onnxruntime-web"),
    packaged("gradients", "tfjs.mjs", "tfjs wasm", "@tensorflow/tfjs-backend-wasm"),
    packaged("gradients", "jax.mjs", "jax-js", "@jax-js/jax"),
    fishy("adam", "adam"),
    torch("adam", "adam", "PyTorch eager"),
    torch("adam", "compile-adam", "PyTorch compile"),
    python("ort-training", "ort_training.py", "adam", "adam", "onnxruntime-training"),
    python("torch", "onnxsim_step.py", "adam", "adam", "onnxsim step graph"),
    packaged("adam", "training-wasm.mjs", "training wasm", "onnxruntime-web"),
    packaged("adam", "tfjs.mjs", "tfjs wasm", "@tensorflow/tfjs-backend-wasm"),
    fishy("shampoo", "shampoo"),
    { ...fishy("shampoo-google", "shampoo-google"), ...onlyA },
    { ...torch("shampoo-google", "shampoo-google", "pytorch-optimizer"), ...onlyA },
    { ...fishy("shampoo-meta", "shampoo-meta"), ...onlyA },
    { ...torch("shampoo-meta", "shampoo-meta", "Meta's"), ...meta, ...onlyA },
    fishy("fim-shampoo", "fim-shampoo"),
    fishy("fishy", "fishy"),
  ];
}

/** Who measures the limit. */
export function limits(threads, peers) {
  const interpreter = peers && join(peers, "torch", "bin", "python");
  return [
    { name: "onnxruntime-node", part: "sgemm", command: node("workloads/sgemm.mjs", String(threads)) },
    {
      ...{ name: "PyTorch", part: "sgemm", needs: interpreter },
      command: [interpreter, join(here, "peers", "sgemm.py"), String(threads)],
    },
  ];
}

/** Why a contestant cannot take part; undefined when it can. */
export function missing(contestant) {
  const { needs } = contestant;
  if (!("needs" in contestant) || (needs && existsSync(needs))) return undefined;
  return needs ? `there is no ${needs}` : "needs --peers FOLDER";
}
