/**
 * Everything that a machine can tell of a device: the probes, the correctness suite, step times for K steps at once, and
 * PyTorch's on the same works where a Python with PyTorch is there.
 *
 *     node tools/gpu/run.mjs [--device cpu|cuda|webgpu|auto] [--out FOLDER] [--parts correctness,steps,pytorch]
 *         [--work autoencoder,vgg16,transformer,mlp] [--modes gradients,adam,…] [--steps 1,4,16,64] [--seconds S]
 *         [--threads N] [--clock wall|cpu] [--python PYTHON] [--quick]
 *
 * Writes results.json, report.md and figure.svg into FOLDER (default gpu-results). --quick measures steps in seconds
 * (quick-steps.mjs).
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { formatTable } from "../../dist/cli/table.js";
import { ALLOCATOR } from "../../dist/runtime/allocator.js";
import { formatDevice, parseDevice } from "../../dist/runtime/devices.js";
import { chooseDevice, probeDevices } from "../../dist/runtime/probe.js";
import { writeWork } from "../bench/workloads/works.mjs";
import { drawFigure } from "./figure.mjs";

const { values } = parseArgs({
  options: {
    device: { type: "string", default: "auto" },
    out: { type: "string", default: "gpu-results" },
    parts: { type: "string", default: "correctness,steps,pytorch" },
    work: { type: "string", default: "autoencoder,vgg16,transformer,mlp" },
    modes: { type: "string", default: "gradients,adam,shampoo,fim-shampoo,fishy" },
    steps: { type: "string", default: "1,4,16,64" },
    seconds: { type: "string", default: "40" },
    threads: { type: "string", default: "0" },
    clock: { type: "string", default: "wall" },
    quick: { type: "boolean", default: false },
    python: { type: "string", default: process.env.FISHY_GPU_PYTHON ?? "python3" },
  },
});
const out = resolve(values.out);
mkdirSync(out, { recursive: true });
const parts = new Set(values.parts.split(","));
const say = (text) => process.stderr.write(`${text}\n`);

/** Runs a script that prints lines of JSON. */
function lines(command, args) {
  const { stdout, stderr, status, error } = spawnSync(command, args, {
    encoding: "utf8",
    maxBuffer: 2 ** 28,
    timeout: 3_600_000,
    env: {
      ...process.env,
      ...{ FISHY_BENCH_CLOCK: values.clock, FISHY_BENCH_THREADS: values.threads },
      // As the process of `fishy train` has it.
      ...(command === process.execPath && ALLOCATOR),
    },
  });
  const found = (stdout ?? "").split("\n").filter((line) => line.startsWith("{"));
  const failed = error || (status !== 0 && found.length === 0);
  return {
    results: found.map((line) => JSON.parse(line)),
    ...(failed && { error: error?.message ?? stderr.slice(-2000) }),
  };
}
const script = (name) => join(import.meta.dirname, name);

say("probing devices");
const probes = await probeDevices();
for (const { name, available, missing, gigaflops } of probes) {
  say(`  ${name}: ${available ? `${gigaflops.toFixed(0)} GFLOP/s, copies included` : missing.join("; ")}`);
}
const { device, why } = await chooseDevice(parseDevice(values.device));
say(`device: ${why}`);
const name = formatDevice(device);
const nvidia = spawnSync("nvidia-smi", ["--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"], {
  encoding: "utf8",
});
const results = {
  date: new Date().toISOString(),
  device: name,
  probes,
  machine: { cpu: cpus()[0]?.model, cores: cpus().length, node: process.version, gpu: nvidia.stdout?.trim() || null },
};
const save = () => writeFileSync(join(out, "results.json"), `${JSON.stringify(results, null, 1)}\n`);

if (parts.has("correctness")) {
  say("correctness");
  const { results: checks, error } = lines(process.execPath, [
    script("correctness.mjs"),
    ...["--device", name, "--threads", values.threads],
  ]);
  results.correctness = { checks, ...(error && { error }) };
  say(`  ${checks.filter(({ passed }) => passed).length} of ${checks.length} passed${error ? `; ${error}` : ""}`);
  save();
}

const works = mkdtempSync(join(tmpdir(), "fishy-works-"));
const chosen = values.work.split(",");
try {
  if (parts.has("steps") || parts.has("pytorch")) for (const work of chosen) await writeWork(work, join(works, work));
  if (parts.has("steps")) {
    results.steps = [];
    // WebGPU has no loops: its state stays in buffers, and single steps are all there is.
    const counts = device.kind === "webgpu" ? "" : values.steps;
    for (const work of chosen) {
      for (const mode of values.modes.split(",")) {
        say(`steps: ${work}, ${mode}`);
        const { results: found, error } = lines(process.execPath, [
          ...[script("steps.mjs"), join(works, work), mode, "--device", name, "--steps", counts],
          ...["--seconds", values.seconds, "--threads", values.threads, "--clock", values.clock],
          ...(values.quick ? ["--quick"] : []),
        ]);
        results.steps.push(...(error ? [{ work, mode, error }] : found));
        save();
      }
    }
  }
  if (parts.has("pytorch")) {
    results.pytorch = [];
    for (const work of chosen) {
      say(`PyTorch: ${work}`);
      const torchDevice = device.kind === "cpu" ? "cpu" : `cuda:${device.index}`;
      const { results: found, error } = lines(values.python, [
        ...[script("pytorch.py"), join(works, work), torchDevice, values.quick ? "4" : values.seconds],
      ]);
      results.pytorch.push(...found, ...(error ? [{ work, error }] : []));
      save();
    }
  }
} finally {
  rmSync(works, { recursive: true, force: true });
}
save();
writeFileSync(join(out, "report.md"), reportOf(results));
const figure = drawFigure(results);
if (figure) writeFileSync(join(out, "figure.svg"), figure);
process.stdout.write(reportOf(results));
if (
  results.correctness &&
  !(results.correctness.checks.length > 0 && results.correctness.checks.every(({ passed }) => passed))
) {
  process.exitCode = 1;
}

function reportOf({ machine, probes: found, correctness, steps = [], pytorch = [] }) {
  const sections = [
    `# ${name} on ${machine.gpu ?? machine.cpu}`,
    formatTable(
      ["device", "works", "GFLOP/s", "float32 products", "missing"],
      found.map((probe) => [
        ...[probe.name, probe.available ? "yes" : "no", probe.gigaflops?.toFixed(0) ?? ""],
        ...[probe.isExact === undefined ? "" : probe.isExact ? "exact" : "TF32", probe.missing.join("; ")],
      ]),
    ),
  ];
  if (correctness) {
    const failed = correctness.checks.filter(({ passed }) => !passed);
    sections.push(
      `## Correctness: ${correctness.checks.length - failed.length} of ${correctness.checks.length} passed`,
      ...(failed.length > 0
        ? [
            formatTable(
              ["model", "check", "error", "tolerance"],
              failed.map((c) => [c.model, c.check, c.error?.toExponential(1) ?? "NaN", String(c.tolerance)]),
            ),
          ]
        : []),
      ...(correctness.error ? [correctness.error] : []),
    );
  }
  const rows = steps.flatMap(({ work, mode, contestants, error }) =>
    error
      ? [[work, mode, "", "", "", "", error.split("\n").at(-1)]]
      : contestants.map((c) => [
          ...[work, mode, c.name, c.milliseconds.toFixed(3), c.ratio.toFixed(2)],
          ...[c.share === undefined ? "" : `${(100 * c.share).toFixed(1)} %`],
          c.sameLosses === undefined ? (c.isRun ? "" : "not run") : c.sameLosses ? "same" : "differ",
        ]),
  );
  if (rows.length > 0) {
    sections.push(
      "## Milliseconds a step",
      formatTable(["work", "what", "how", "ms", "to single", "moving tensors", "losses"], rows),
    );
  }
  if (pytorch.length > 0) {
    sections.push(
      "## PyTorch, milliseconds a step",
      formatTable(
        ["work", "mode", "ms"],
        pytorch.map(({ work, mode = "", milliseconds, error }) => [
          work,
          mode,
          milliseconds?.toFixed(3) ?? error.split("\n").at(-1),
        ]),
      ),
    );
  }
  return `${sections.join("\n\n")}\n`;
}
