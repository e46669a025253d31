/** The measurement of kernels.mjs. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { subgraphsOf } from "../../src/onnx/attributes.js";
import { emptyGraph, GraphBuilder, type ValueType, valueInfo } from "../../src/onnx/builder.js";
import { encodeModel } from "../../src/onnx/codec.js";
import { DataType, type GraphProto, type ModelProto, type NodeProto } from "../../src/onnx/proto.js";
import { dataTypeName } from "../../src/onnx/tensor.js";
import { inferTypes, type TypeMap } from "../../src/onnx/types.js";
import { createOptimizer } from "../../src/optimizers/registry.js";
import { rewrite } from "../../src/rewrite/rewrite.js";
import { buildStepGraph } from "../../src/training/step-graph.js";
import { goldenLoss } from "../../test/support/golden-run.js";
import { modelOf } from "../../test/support/run.js";
import { GRAPHS, loadGolden } from "../../test/support/shared.js";
import { operatorName } from "../docs/case.js";
import { CATALOGUE } from "../docs/catalogue.js";
import { graphsOf } from "../docs/graphs.js";
import { webGpuDriver } from "./driver.js";

const TYPES = [
  DataType.FLOAT,
  DataType.FLOAT16,
  DataType.INT32,
  DataType.UINT32,
  DataType.INT64,
  DataType.BOOL,
  DataType.DOUBLE,
  DataType.INT8,
  DataType.UINT8,
];

/** Operators that source models may hold beside those of the catalogue, and their number of inputs. */
const FURTHER = [
  ["ArgMin", 1],
  ["GreaterOrEqual", 2],
  ["IsNaN", 1],
  ["NonZero", 1],
  ["SpaceToDepth", 1],
  ["Sum", 2],
  ["Xor", 2],
] as const;

/** A node with what it reads, one of its data types replaced by another. */
interface Probe {
  readonly operator: string;
  /** Positions of the inputs that have the type. */
  readonly positions: readonly number[];
  readonly type: DataType;
  readonly model: ModelProto;
}

const probes = new Map<string, Probe>();
for (const example of CATALOGUE) {
  const { forward, backward } = await graphsOf(example);
  for (const part of [forward, backward]) if (part) collect(part.model, part.types);
}
for (const name of readdirSync(join(GRAPHS, "pytorch")).filter((file) => !file.includes("."))) {
  const golden = loadGolden(name);
  const program = await rewrite(golden.model, { loss: goldenLoss(golden) });
  for (const optimizer of ["adam", "fishy"] as const) {
    const made = createOptimizer({ name: optimizer }, program.manifest.parameters);
    const parts = { statistics: optimizer === "fishy", roots: optimizer === "fishy" };
    const { model } = buildStepGraph(program, made, { parts, shapes: new Map(), device: "webgpu" });
    collect(model, await inferTypes(model));
  }
}
for (const [opType, inputs] of FURTHER) {
  const b = new GraphBuilder(emptyGraph("further"));
  const names = Array.from({ length: inputs }, (_, i) =>
    b.input(`x${i}`, { elemType: DataType.FLOAT, shape: [2, 4, 2, 2] }),
  );
  b.output(b.op(opType, names, opType === "SpaceToDepth" ? { blocksize: 2 } : {}), {
    elemType: DataType.FLOAT,
    shape: undefined,
  });
  // Not every one of them takes floats, so nothing is inferred.
  collect(modelOf(b.graph), new Map(names.map((name) => [name, { elemType: DataType.FLOAT, shape: [2, 4, 2, 2] }])));
}
console.log(`${probes.size} models of one node`);
writeTable(run([...probes.values()]));

function collect(model: ModelProto, types: TypeMap): void {
  const constants = new Map(model.graph.initializer.map((tensor) => [tensor.name ?? "", tensor]));
  for (const node of model.graph.node) {
    if (subgraphsOf(node).length > 0) continue;
    const isData = (name: string) => name !== "" && !constants.has(name);
    const own = [...new Set(node.input.filter(isData).map((name) => types.get(name)?.elemType))];
    if (own.some((type) => type === undefined)) continue;
    for (const from of own as DataType[]) {
      for (const to of TYPES) add(node, from, to, model, types, constants);
    }
  }
}

function add(
  node: NodeProto,
  from: DataType,
  to: DataType,
  { irVersion, opsetImport }: ModelProto,
  types: TypeMap,
  constants: ReadonlyMap<string, GraphProto["initializer"][number]>,
): void {
  const operator = operatorName(node.opType ?? "", node.domain);
  const positions = [...node.input.keys()].filter((i) => {
    const name = node.input[i] as string;
    return name && types.get(name)?.elemType === from && (!constants.has(name) || from === DataType.FLOAT);
  });
  const attributes = (node.attribute ?? []).map(({ name, i, s }) => `${name}=${i ?? ""}${s ? Buffer.from(s) : ""}`);
  const ranks = node.input.map((name) => types.get(name)?.shape?.length ?? "?");
  const others = node.input.map((name, i) => (positions.includes(i) ? "T" : (types.get(name)?.elemType ?? "")));
  const key = [operator, others, to, attributes.sort(), ranks].join("|");
  if (probes.has(key)) return;
  const graph = emptyGraph("probe");
  const inputs = node.input.map((name, i) => {
    const type = types.get(name);
    if (!name || !type) return "";
    const unique = `input_${i}`;
    const tensor = constants.get(name);
    if (tensor && !positions.includes(i)) graph.initializer.push({ ...tensor, name: unique });
    else {
      const elemType = positions.includes(i) ? to : type.elemType;
      graph.input.push(valueInfo(unique, { elemType, shape: type.shape } as ValueType));
    }
    return unique;
  });
  const outputs = node.output.map((name, i) => (name ? `output_${i}` : ""));
  graph.node = [{ ...node, name: "probe", input: inputs, output: outputs }];
  graph.output = outputs.filter(Boolean).map((name) => ({ name }));
  const model = { ...(irVersion !== undefined && { irVersion }), opsetImport, graph };
  probes.set(key, {
    operator,
    positions,
    type: to,
    model: { ...model, producerName: "fishy", metadataProps: [], trainingInfo: [], functions: [] },
  });
}

/** The verdict on each probe. */
function run(all: readonly Probe[]): Map<Probe, string> {
  const folder = mkdtempSync(join(tmpdir(), "fishy-kernels-"));
  const models = join(folder, "models");
  const results = join(folder, "results.txt");
  mkdirSync(models);
  const files = all.map((probe, i) => {
    const file = `${String(i).padStart(6, "0")}.onnx`;
    writeFileSync(join(models, file), encodeModel(probe.model));
    return file;
  });
  const read = () =>
    existsSync(results)
      ? readFileSync(results, "utf8")
          .trim()
          .split("\n")
          .map((line) => line.split("\t"))
      : [];
  const script = join(import.meta.dirname, "probe-kernels.mjs");
  for (let done = 0; done < files.length; done = read().length) {
    spawnSync(process.execPath, [script, models, String(done), results], { env: webGpuDriver().environment });
    // A probe that ended the process has no line.
    if (read().length < files.length) writeFileSync(results, `${files[read().length]}\tcrashes\n`, { flag: "a" });
  }
  const verdicts = new Map(read() as [string, string][]);
  rmSync(folder, { recursive: true });
  return new Map(all.map((probe, i) => [probe, verdicts.get(files[i] as string) ?? "missing"]));
}

function writeTable(verdicts: ReadonlyMap<Probe, string>): void {
  const kernels = new Map<string, Set<string>[]>();
  const seen = new Map<string, Set<string>>();
  for (const [{ operator, positions, type, model }, verdict] of verdicts) {
    if (verdict === "crashes" || verdict === "missing") console.log(operator, dataTypeName(type), verdict);
    if (verdict.startsWith("refused")) continue;
    const key = `${operator} of ${dataTypeName(type)} at ${positions.join(", ")}`;
    seen.set(key, (seen.get(key) ?? new Set()).add(verdict));
    const own = kernels.get(operator) ?? [];
    kernels.set(operator, own);
    // Inputs that were never data, such as axes, take any type.
    own.length = Math.max(own.length, model.graph.node[0]?.input.length ?? 0);
    for (const i of positions) {
      own[i] ??= new Set();
      if (verdict === "runs") own[i].add(dataTypeName(type));
    }
  }
  // Further inputs were tried together with the first, and alone: an empty entry there takes any type.
  for (const [operator, own] of kernels) if (own.find(Boolean)?.size === 0) kernels.delete(operator);
  for (const [key, found] of seen) if (found.size > 1) console.log(`${key}: ${[...found].join(", ")}`);
  const rows = [...kernels]
    .concat([["If", []]])
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([operator, positions]) => `${JSON.stringify(operator)}: ${JSON.stringify(entriesOf(positions))},`);
  writeFileSync(
    new URL("../../src/placement/webgpu-kernels.ts", import.meta.url),
    `${header()}${rows.join("\n")}\n};\n`,
  );
}

/** One entry for each position; the last holds for all further ones. */
function entriesOf(positions: readonly (ReadonlySet<string> | undefined)[]): string[] {
  const order = TYPES.map(dataTypeName);
  const entries = Array.from(positions, (types) => order.filter((type) => types?.has(type)).join(" "));
  while (entries.length > 1 && entries.at(-1) === entries.at(-2)) entries.pop();
  return entries;
}

function header(): string {
  const file = new URL("../../node_modules/onnxruntime-node/package.json", import.meta.url);
  const { version } = JSON.parse(readFileSync(file, "utf8")) as { version: string };
  return `/**
 * WebGPU kernels of onnxruntime-node ${version} for opset 18, by which models of one node load without fallback to the CPU
 * (${webGpuDriver().name}). Made by \`node tools/webgpu/kernels.mjs\`.
 */
import type { KernelTable } from "./kernel-table.js";

export const WEBGPU_KERNELS: KernelTable = {
`;
}
