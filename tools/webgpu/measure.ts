/** The measurement of measure.mjs. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { encodeModel } from "../../src/onnx/codec.js";
import { type Case, caseName } from "../docs/case.js";
import { CATALOGUE } from "../docs/catalogue.js";
import { type CaseRuns, type Feeds, type Run, runOnCpu } from "../docs/feeds.js";
import { type CaseGraphs, graphsOf, operatorsOf, type Part, typeName } from "../docs/graphs.js";
import { webGpuDriver } from "./driver.js";
import {
  type CaseResult,
  isMeasured,
  type PartResult,
  readResults,
  resultsFile,
  TOLERANCE,
  type WebGpuResults,
} from "./results.js";

const folder = mkdtempSync(join(tmpdir(), "fishy-webgpu-"));
const driver = webGpuDriver();

const chosen = process.argv.slice(2);
const known = chosen.includes("--all") ? {} : readResults().cases;
const cases: Record<string, CaseResult> = {};
// Every case is emitted before the first is measured, so that a broken one is known at once.
const runs = new Map<Case, { graphs: CaseGraphs; onCpu: CaseRuns }>();
for (const example of CATALOGUE) {
  const graphs = await graphsOf(example);
  if (chosen.includes(example.operator) || !isMeasured(known[caseName(example)], graphs)) {
    runs.set(example, { graphs, onCpu: await runOnCpu(example, graphs) });
  }
}
for (const example of CATALOGUE) {
  const name = caseName(example);
  const run = runs.get(example);
  if (!run) {
    if (known[name]) cases[name] = known[name];
    continue;
  }
  const { graphs, onCpu } = run;
  const forward = measure(graphs.forward, onCpu.forward);
  const backward = graphs.backward && onCpu.backward && measure(graphs.backward, onCpu.backward);
  cases[name] = { forward, ...(backward && { backward }) };
  console.log([name, forward.status, backward?.status ?? "zero"].join("  "));
}
rmSync(folder, { recursive: true });
const results: WebGpuResults = { runtime: `onnxruntime-node ${runtimeVersion()}`, driver: driver.name, cases };
writeFileSync(resultsFile, `${JSON.stringify(results, null, 2)}\n`);

function measure(part: Part, run: Run): PartResult {
  const operators = operatorsOf(part);
  writeFileSync(join(folder, "model.onnx"), encodeModel(run.model));
  writeFileSync(join(folder, "feeds.json"), JSON.stringify(serialise(run.feeds)));
  const strict = start("strict");
  const { outputs, log } = strict.outputs ? strict : start("fallback");
  if (!outputs) return { status: "fails", reason: lastError(log), operators };
  const error = relativeError(outputs, run.outputs);
  const judged = { error: Number(error.toPrecision(2)), operators };
  if (!(error < TOLERANCE)) {
    return { status: "differs", reason: `relative error ${error.toPrecision(2)} to the CPU`, operators };
  }
  if (strict.outputs) return { status: "runs", ...judged };
  const shapes = new Set(part.shapeNodes.map((node) => node.name));
  const onCpu = nodesOnCpu(log, part).filter(({ opType }) => !opType.startsWith("Memcpy"));
  if (onCpu.length === 0) return { status: "fails", reason: lastError(strict.log), operators };
  const fallen = onCpu.filter(({ name }) => !shapes.has(name)).map((node) => describe(node, part));
  if (fallen.length === 0) return { status: "runs, shapes on the CPU", ...judged };
  return { status: "falls back", reason: [...new Set(fallen)].sort().join(", "), ...judged };
}

interface Output {
  readonly dims: readonly number[];
  readonly values: readonly number[];
}

function start(mode: "strict" | "fallback"): { outputs?: Record<string, Output>; log: string } {
  const file = join(folder, "outputs.json");
  rmSync(file, { force: true });
  const script = join(import.meta.dirname, "run-part.mjs");
  const child = spawnSync(process.execPath, [script, folder, mode], {
    encoding: "utf8",
    env: driver.environment,
    maxBuffer: 2 ** 28,
    timeout: 60_000,
  });
  const log = `${child.stdout}${child.stderr}`;
  return existsSync(file) ? { outputs: JSON.parse(readFileSync(file, "utf8")), log } : { log };
}

interface PlacedNode {
  readonly opType: string;
  readonly name: string;
}

/** `Cast of int64`: the operator, and the type of its first input unless that is float. */
function describe({ opType, name }: PlacedNode, part: Part): string {
  const node = part.model.graph.node.find((candidate) => candidate.name === name);
  const type = typeName(node?.input[0] ?? "", part.types);
  return type && type !== "float" ? `${opType} of ${type}` : opType;
}

/** The nodes that ONNX Runtime's log says it placed on the CPU. */
function nodesOnCpu(log: string, part: Part): PlacedNode[] {
  if (log.includes("All nodes placed on [CPUExecutionProvider]")) {
    return part.model.graph.node.map(({ opType = "", name = "" }) => ({ opType, name }));
  }
  const found: PlacedNode[] = [];
  let onCpu = false;
  for (const line of log.split("\n")) {
    const message = line.replace(/^.*VerifyEachNodeIsAssignedToAnEp\] /, "");
    if (message === line) continue;
    const place = /placed on \[(\w+)\]/.exec(message);
    if (place) onCpu = place[1] === "CPUExecutionProvider";
    const node = /^\s*(\S+) \((.*)\)\s*$/.exec(message);
    if (node && onCpu) found.push({ opType: node[1] as string, name: node[2] as string });
  }
  return found;
}

function relativeError(actual: Record<string, Output>, expected: Feeds): number {
  let error = 0;
  for (const [name, tensor] of Object.entries(expected)) {
    const reference = Array.from(tensor.data as Float32Array, Number);
    const values = actual[name]?.values ?? [];
    const norm = Math.max(1e-3, Math.hypot(...reference));
    const distance = Math.hypot(...reference.map((value, i) => value - (values[i] ?? Number.NaN)));
    error = Math.max(error, distance / norm);
  }
  return error;
}

function serialise(feeds: Feeds) {
  const entries = Object.entries(feeds).map(([name, { type, dims, data }]) => {
    const { buffer, byteOffset, byteLength } = data as Float32Array;
    return [name, { type, dims, base64: Buffer.from(buffer, byteOffset, byteLength).toString("base64") }];
  });
  return Object.fromEntries(entries);
}

function lastError(log: string): string {
  const message = [...log.matchAll(/Error: (.*)/g)].pop()?.[1] ?? log.trim().split("\n").pop() ?? "";
  return message.replace(/^.*Status Message: /, "").slice(0, 300);
}

function runtimeVersion(): string {
  const file = new URL("../../node_modules/onnxruntime-node/package.json", import.meta.url);
  return JSON.parse(readFileSync(file, "utf8")).version;
}
