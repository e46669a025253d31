/**
 * What sampling a share of the batch saves:
 *
 *     node tools/bench/share.mjs [MODEL] [BATCH]
 *
 * Milliseconds of a step with statistics (no roots) of Fishy, for shares 1, 1/2, 1/4 and 1/8 of the batch, and of the same
 * update without statistics; rounds alternate, medians of the differences are shown too.
 */
import "../../test/support/register-typescript.mjs";
import { readFileSync } from "node:fs";

const { formatTable } = await import("../../src/cli/table.ts");
const { decodeModel } = await import("../../src/onnx/codec.ts");
const { createOptimizer } = await import("../../src/optimizers/registry.ts");
const { rewrite } = await import("../../src/rewrite/rewrite.ts");
const { wantedInputs } = await import("../../src/training/inputs.ts");
const { Stepper } = await import("../../src/training/stepper.ts");

const [path = new URL("../../graphs/autoencoder.onnx", import.meta.url).pathname, batch = "1000"] =
  process.argv.slice(2);
const size = Number(batch);
const ROUNDS = 9;
const FIRST_ROOTS = 1_000_000;

const contestants = [];
for (const share of [0, 1, 0.5, 0.25, 0.125]) {
  const program = await rewrite(decodeModel(readFileSync(path)), {
    loss: "sigmoid-cross-entropy",
    ...(share > 0 && share < 1 && { sampledShare: share }),
    ...(share === 0 && { sections: { kind: "none" } }),
  });
  const { parameters } = program.manifest;
  const optimizer = createOptimizer(
    share === 0 ? { name: "adam" } : { name: "fishy", startStep: FIRST_ROOTS, diagnostics: false },
    parameters,
  );
  const inputs = wantedInputs(program).map(({ name, type, shape }) => ({ name, type, dims: shape.slice(1) }));
  const stepper = await Stepper.create({ program, optimizer, inputs, batchSize: size, seed: 1 });
  stepper.fill(0, {
    size,
    fill: (into) => {
      for (const data of into.values()) for (let i = 0; i < data.length; i++) data[i] = ((i * 7919) % 997) / 997;
    },
  });
  await stepper.prepare(1);
  contestants.push({ share, stepper, times: [] });
}
for (let round = 0; round <= ROUNDS; round++) {
  for (const { stepper, times } of contestants) {
    const start = performance.now();
    await stepper.run(1);
    if (round > 0) times.push(performance.now() - start);
  }
}
const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
const [none, whole] = contestants;
process.stdout.write(
  `${formatTable(
    ["share", "step ms", "statistics and sampling ms", "of the whole batch's"],
    contestants.map(({ share, times }) => {
      const extra = times.map((time, i) => time - none.times[i]);
      const ratio = extra.map((time, i) => time / (whole.times[i] - none.times[i]));
      return [
        share === 0 ? "no statistics (adam)" : String(share),
        median(times).toFixed(0),
        share === 0 ? "" : median(extra).toFixed(0),
        share === 0 ? "" : median(ratio).toFixed(2),
      ];
    }),
  )}\n`,
);
for (const { stepper } of contestants) await stepper.release();
