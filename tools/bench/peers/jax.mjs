/** jax-js on WebAssembly as a contestant: `jax.mjs FOLDER PART THREADS PEERS`, for stacks of layers. */
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { denseWork } from "./dense.mjs";
import { now, serve } from "./protocol.mjs";

const [folder, , , peers] = process.argv.slice(2);
const { work, layers, activation, x: data, labels } = await denseWork(folder);
const before = process.memoryUsage().rss;
const require = createRequire(join(peers, "package.json"));
const jax = await import(pathToFileURL(require.resolve("@jax-js/jax").replace(/\.cjs$/, ".js")).href);
const { numpy: np, nn, valueAndGrad, jit, init, defaultDevice } = jax;
await init("wasm");
defaultDevice("wasm");

const array = (values, dims) => np.array(values).reshape(dims);
const parameters = layers.flatMap(({ weight, bias }) => [array(weight.data, weight.dims), array(bias.data, bias.dims)]);
const x = array(data, [work.batch, ...work.dims]);
const oneHot = labels && new Float32Array(work.batch * work.classes);
labels?.forEach((label, i) => {
  oneHot[i * work.classes + label] = 1;
});
const target = oneHot ? array(oneHot, [work.batch, work.classes]) : x;

function lossOf(values, input, wanted) {
  let y = input;
  for (let i = 0; i < values.length; i += 2) {
    y = np.matmul(y, np.transpose(values[i])).add(values[i + 1]);
    if (i + 2 < values.length) y = activation === "tanh" ? np.tanh(y) : nn.relu(y);
  }
  if (work.loss === "softmax-cross-entropy")
    return nn
      .logSoftmax(y)
      .mul(wanted)
      .sum()
      .mul(-1 / work.batch);
  return nn
    .softplus(y.ref)
    .sub(y.mul(wanted))
    .sum()
    .mul(1 / work.batch);
}

const run = jit(valueAndGrad(lossOf));
async function step() {
  const [value, gradients] = run(
    parameters.map((one) => one.ref),
    x.ref,
    target.ref,
  );
  const loss = (await value.data())[0];
  for (const gradient of gradients) await gradient.data();
  return loss;
}

const loss = await step();
await step();
const { version } = require(join(peers, "node_modules", "@jax-js", "jax", "package.json"));
serve({ loss, version: `jax-js ${version} (wasm)`, kinds: ["step"], before }, async (repeat) => {
  const times = [];
  for (let i = 0; i < Math.min(repeat, 20); i++) {
    const start = now();
    await step();
    times.push(now() - start);
  }
  return { step: times };
});
