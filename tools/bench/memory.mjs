/**
 * Memory of a long run: 10,000 steps of Fishy on a small classifier, with evaluations, checkpoints and event files, in
 * the process that a run of its own would have.
 *
 *   npm run build && node tools/bench/memory.mjs [STEPS]
 *
 * Prints the resident set at some steps and fails when it differs by more than 5 % between step 1,000 and the last.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ALLOCATOR } from "../../dist/runtime/allocator.js";

const STEPS = Number(process.argv[2] ?? 10_000);
const FROM = 1000;
const TOLERANCE = 0.05;
const root = join(import.meta.dirname, "..", "..");

if (process.env.FISHY_MEMORY_CHILD === undefined) {
  const child = spawnSync(process.execPath, process.argv.slice(1), {
    stdio: "inherit",
    env: { ...process.env, ...ALLOCATOR, FISHY_MEMORY_CHILD: "1" },
  });
  process.exit(child.status ?? 1);
}

const { train } = await import(join(root, "dist", "index.js"));
const outDir = mkdtempSync(join(tmpdir(), "fishy-memory-"));
const sizes = new Map();
try {
  await train({
    model: join(root, "graphs", "pytorch", "vgg_small", "model.onnx"),
    rewrite: { loss: "softmax-cross-entropy" },
    data: samples(),
    heldOut: samples(64),
    optimizer: { name: "fishy", learningRate: 1e-3, rootInterval: 20 },
    batchSize: 8,
    steps: STEPS,
    evaluateEvery: 500,
    checkpointEvery: 500,
    keepBest: true,
    tensorboard: true,
    isolate: false,
    outDir,
    onStep({ step }) {
      if (step % 100 === 0) sizes.set(step, process.memoryUsage().rss / 2 ** 20);
    },
  });
} finally {
  rmSync(outDir, { recursive: true, force: true });
}

for (const step of [100, 500, 1000, 2000, 4000, 6000, 8000, STEPS]) {
  if (sizes.has(step)) console.log(`step ${String(step).padStart(6)}: ${sizes.get(step).toFixed(1)} MiB`);
}
const [before, after] = [sizes.get(FROM), sizes.get(STEPS)];
const growth = after / before - 1;
console.log(`from step ${FROM} to ${STEPS}: ${(100 * growth).toFixed(2)} %`);
if (Math.abs(growth) > TOLERANCE) process.exitCode = 1;

/** Images of noise in ten classes; the numbers do not matter to memory. */
function samples(count = 512) {
  const [channels, height, width] = [3, 16, 16];
  const data = Float32Array.from({ length: count * channels * height * width }, (_, i) => Math.sin(i * 12.9898));
  const labels = BigInt64Array.from({ length: count }, (_, i) => BigInt(i % 10));
  return {
    name: "noise",
    length: count,
    columns: new Map([
      ["x", { name: "x", type: 1, dims: [channels, height, width], data }],
      ["labels", { name: "labels", type: 7, dims: [], data: labels }],
    ]),
  };
}
