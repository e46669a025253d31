/**
 * Whether eigenbases by QR iterations in ONNX are practical:
 *
 *     node tools/bench/soap.mjs [SIZE…]
 *
 * For each size: milliseconds of one step of orthogonal iteration (src/optimizers/soap/basis.ts), of one inverse root, and
 * how far the basis diagonalises slowly turning statistics, ‖offdiag(QᵀSQ)‖/‖S‖, after 1, 5, 10 and 30 refreshes from the
 * identity. With PYTHON, NumPy's eigh and QR iteration on the same matrices.
 */
import "../../test/support/register-typescript.mjs";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as ort from "onnxruntime-node";
import { generator, modelOf } from "./support.mjs";

const { formatTable } = await import("../../src/cli/table.ts");
const { emptyGraph, GraphBuilder } = await import("../../src/onnx/builder.ts");
const { partProgram } = await import("../../src/optimizers/program.ts");
const { createOptimizer } = await import("../../src/optimizers/registry.ts");
const { emitBasis } = await import("../../src/optimizers/soap/basis.ts");
const { createSession } = await import("../../src/runtime/session.ts");

const sizes = process.argv.slice(2).map(Number);
const REFRESHES = 30;
const SHOWN = [1, 5, 10, 30];

/** Normals that are the same at every run. */
function normals(seed) {
  const uniform = generator(seed);
  // Never the logarithm of 0.
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

async function sessionOf(emit) {
  const b = new GraphBuilder(emptyGraph("bench"));
  emit(b);
  const start = performance.now();
  const session = await createSession(modelOf(b.graph), { purpose: "the benchmark" });
  return { session, nodes: b.graph.node.length, load: performance.now() - start };
}

const tensor = (data, n) => new ort.Tensor("float32", data, [1, n, n]);

/** Statistics S ← 0.95 S + 0.05 GGᵀ, ten updates between refreshes, of gradients whose covariance falls over six decades and turns. */
async function statisticsOf(n) {
  const random = normals(7);
  const fill = (count, scale = () => 1) => Float32Array.from({ length: count }, (_, i) => scale(i) * random());
  const rank = Math.min(32, n);
  const b = new GraphBuilder(emptyGraph("statistics"));
  const type = (shape) => ({ elemType: 1, shape });
  for (const [name, shape] of [
    ["s", [n, n]],
    ["u", [n, n]],
    ["g", [n, rank]],
  ])
    b.input(name, type(shape));
  const g = b.matMul("u", "g");
  b.output(b.alias(b.gemm(g, g, { c: "s", transB: true, alpha: 0.05, beta: 0.95 }), "s_next"), type([n, n]));
  const gram = await createSession(modelOf(b.graph));
  // A random orthogonal matrix turned a little at each refresh: products of planar rotations keep it orthogonal.
  const u = new Float32Array(n * n);
  for (let i = 0; i < n; i++) u[i * n + i] = 1;
  const turn = (count, angle) => {
    for (let k = 0; k < count; k++) {
      const [p, q] = [Math.floor(Math.abs(random() * 1e6)) % n, Math.floor(Math.abs(random() * 1e6)) % n];
      if (p === q) continue;
      const phi = angle * random();
      const [c, s] = [Math.cos(phi), Math.sin(phi)];
      for (let i = 0; i < n; i++) {
        const [x, y] = [u[i * n + p], u[i * n + q]];
        u[i * n + p] = c * x - s * y;
        u[i * n + q] = s * x + c * y;
      }
    }
  };
  turn(n * Math.ceil(Math.log2(n)), 3);
  let s = new Float32Array(n * n);
  const out = [];
  for (let refresh = 1; refresh <= REFRESHES; refresh++) {
    for (let step = 0; step < 10; step++) {
      const scaled = fill(n * rank, (i) => 10 ** ((-3 * Math.floor(i / rank)) / n) / Math.sqrt(rank));
      const feeds = {
        s: new ort.Tensor("float32", s, [n, n]),
        u: new ort.Tensor("float32", u, [n, n]),
        g: new ort.Tensor("float32", scaled, [n, rank]),
      };
      s = (await gram.fetch(feeds, ["s_next"])).s_next.data;
    }
    turn(n, 0.02);
    out.push(s.map((x) => x / (1 - 0.95 ** (10 * refresh))));
  }
  await gram.release();
  return out;
}

/** ‖offdiag(QᵀSQ)‖/‖QᵀSQ‖. */
async function offDiagonal(statistics, basis, n) {
  const { session } = await sessionOf((b) => {
    for (const name of ["s", "q"]) b.input(name, { elemType: 1, shape: [n, n] });
    const q = b.cast("q", 11);
    const rotated = b.matMul(b.transpose(q, [1, 0]), b.matMul(b.cast("s", 11), q));
    b.output(b.alias(b.cast(rotated, 1), "r"), { elemType: 1, shape: [n, n] });
  });
  const feed = (data) => new ort.Tensor("float32", data, [n, n]);
  const { r } = await session.fetch({ s: feed(statistics), q: feed(basis) }, ["r"]);
  await session.release();
  let [off, all] = [0, 0];
  for (const [i, x] of r.data.entries()) {
    all += x * x;
    if (i % (n + 1) !== 0) off += x * x;
  }
  return Math.sqrt(off / all);
}

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
const folder = mkdtempSync(join(tmpdir(), "fishy-soap-"));
const rows = [];
for (const n of sizes.length > 0 ? sizes : [64, 256, 512, 1000]) {
  const all = await statisticsOf(n);
  const basis = await sessionOf((b) => {
    for (const name of ["s", "q"]) b.input(name, { elemType: 1, shape: [1, n, n] });
    const result = emitBasis(b, "s", "q", n);
    b.output(b.alias(result.basis, "next"), { elemType: 1, shape: [1, n, n] });
    b.output(b.alias(result.residual, "residual"), { elemType: 1, shape: [1] });
  });
  // What a refresh of Shampoo's roots is for one matrix of this size.
  const shampoo = createOptimizer({ name: "shampoo", sides: "last", exponent: 4, startStep: 1 }, [
    { name: "w", dims: [2, n] },
  ]);
  const part = partProgram(shampoo, "roots");
  const rootSession = await createSession(part.model, { purpose: "the roots" });
  const rootOf = (s) => {
    const feeds = {};
    for (const [name, { role, name: of }] of part.inputs) {
      const spec = shampoo.state.find((state) => state.name === of);
      if (role === "hyperparameter") {
        feeds[name] = new ort.Tensor("float32", [shampoo.hyperparameters(1)[of]], []);
      } else feeds[name] = new ort.Tensor("float32", spec.dims.length === 2 ? s : spec.init(), spec.dims);
    }
    return rootSession.fetch(feeds, [...part.outputs.keys()]);
  };
  let q = new Float32Array(n * n);
  for (let i = 0; i < n; i++) q[i * n + i] = 1;
  const [errors, times, roots] = [[], [], []];
  let residual = 0;
  for (const [i, s] of all.entries()) {
    let start = performance.now();
    const out = await basis.session.fetch({ s: tensor(s, n), q: tensor(q, n) }, ["next", "residual"]);
    times.push(performance.now() - start);
    q = out.next.data;
    residual = Math.max(residual, out.residual.data[0]);
    if (i >= 3 && i < 10) {
      start = performance.now();
      await rootOf(s);
      roots.push(performance.now() - start);
    }
    if (SHOWN.includes(i + 1)) errors.push((await offDiagonal(s, q, n)).toExponential(1));
  }
  const row = [
    n,
    basis.nodes,
    Math.round(basis.load),
    median(times).toFixed(1),
    median(roots).toFixed(1),
    errors.join(" / "),
    residual.toExponential(0),
  ];
  await basis.session.release();
  await rootSession.release();
  if (process.env.PYTHON) {
    const file = join(folder, "statistics.f32");
    writeFileSync(file, Buffer.concat(all.map((s) => Buffer.from(s.buffer, s.byteOffset, s.byteLength))));
    const script = `
import numpy as np, sys, time
n = int(sys.argv[2]); S = np.fromfile(sys.argv[1], np.float32).reshape(-1, n, n).astype(np.float64)
def off(Q, s):
    r = Q.T @ s @ Q; return np.linalg.norm(r - np.diag(np.diag(r))) / np.linalg.norm(r)
Q = np.eye(n); errors = []; qr = []
for i, s in enumerate(S):
    t = time.perf_counter(); Q = Q[:, np.argsort(-np.diag(Q.T @ s @ Q))]; Q = np.linalg.qr(s @ Q)[0]; qr.append(time.perf_counter() - t)
    if i + 1 in (1, 5, 10, 30): errors.append(f"{off(Q, s):.1e}")
eigh = []
for s in S[:5]:
    t = time.perf_counter(); np.linalg.eigh(s); eigh.append(time.perf_counter() - t)
print(f"{1e3 * np.median(eigh):.1f}|{1e3 * np.median(qr):.1f}|{' / '.join(errors)}")`;
    const result = spawnSync(process.env.PYTHON, ["-c", script, file, String(n)], { encoding: "utf8" });
    row.push(...result.stdout.trim().split("|"), result.stderr.slice(0, 200));
  }
  rows.push(row);
}
rmSync(folder, { recursive: true });
process.stdout.write(
  `${formatTable(
    [
      "size",
      "nodes",
      "load ms",
      "basis ms",
      "root ms",
      "off the diagonal after 1 / 5 / 10 / 30",
      "max|QᵀQ−I|",
      ...(process.env.PYTHON ? ["eigh ms", "NumPy QR ms", "NumPy's off the diagonal", ""] : []),
    ],
    rows.map((row) => row.map(String)),
  )}\n`,
);
