/** docs/operators.md: the rows from the rules, the catalogue and the WebGPU results, and the page around them. */
import { readFileSync } from "node:fs";
import { RULES } from "../../src/autodiff/rules/registry.js";
import { inferTypes } from "../../src/onnx/types.js";
import { LOWERINGS as OPSET_LOWERINGS, UPGRADES } from "../../src/onnx/upgrade/registry.js";
import { toProgramOpset } from "../../src/onnx/upgrade/upgrade.js";
import { NEWEST_OPSET, OLDEST_OPSET, PROGRAM_OPSET } from "../../src/onnx/versions.js";
import { LOWERINGS } from "../../src/rewrite/lower/lowering.js";
import { type CaseResult, isMeasured, type PartResult, readResults } from "../webgpu/results.js";
import { type Case, caseName, modelOfCase, operatorName } from "./case.js";
import { CATALOGUE, LIMITS } from "./catalogue.js";
import { runOnCpu } from "./feeds.js";
import { graphsOf, type Part } from "./graphs.js";
import { withoutCudaKernel } from "./kernels.js";

const RESULTS = readResults();

/** Operators that have a gradient by a rule or by a lowering, in the order of the lists. */
export function operatorsWithGradient(): string[] {
  const rules = RULES.map(({ opType, domain }) => operatorName(opType, domain));
  return [...new Set([...rules, ...LOWERINGS.map(({ opType }) => opType)])];
}

/** Operators of the default domain that the opset conversion treats. */
export function convertedOperators(): string[] {
  return [...UPGRADES, ...OPSET_LOWERINGS].flatMap(({ operators }) => operators);
}

/** What forward and backward nodes do on a device. */
interface Placement {
  readonly forward: string;
  readonly backward: string;
}

interface Row {
  readonly operator: string;
  readonly differentiated: readonly string[];
  readonly how: string;
  readonly opsets: string;
  readonly limits: string;
  readonly cpu: Placement;
  readonly cuda: Placement;
  readonly webGpu: Placement;
}

/** The cases of each operator, in the alphabet's order. */
function casesByOperator(): [string, Case[]][] {
  const groups = new Map<string, Case[]>();
  for (const example of CATALOGUE) {
    const operator = operatorName(example.operator, example.domain);
    groups.set(operator, [...(groups.get(operator) ?? []), example]);
  }
  return [...groups].sort(([a], [b]) => (a.toLowerCase() < b.toLowerCase() ? -1 : 1));
}

/**
 * The text of docs/operators.md.
 * @throws an Error naming the case that fails, or all that were not measured on WebGPU as they are now.
 */
export async function operatorsPage(): Promise<string> {
  const rows: Row[] = [];
  const unmeasured: string[] = [];
  for (const [operator, cases] of casesByOperator()) rows.push(await rowOf(operator, cases, unmeasured));
  if (unmeasured.length > 0) {
    throw new Error(
      `Not measured on WebGPU as they are emitted now: ${unmeasured.join("; ")}. Run 'node tools/webgpu/measure.mjs' (it says what it needs).`,
    );
  }
  const header = ["Operator", "Gradient for", "By", "Opsets", "Limits", "CPU", "CUDA", "WebGPU"];
  const lines = [header, header.map(() => "---"), ...rows.map(cellsOf)].map((cells) => `| ${cells.join(" | ")} |`);
  return `${introduction(rows)}\n${lines.join("\n")}\n`;
}

function cellsOf(row: Row): string[] {
  const placement = ({ forward, backward }: Placement) =>
    forward === backward || backward === "" ? forward : `${forward} · ${backward}`;
  return [
    `\`${row.operator}\``,
    row.differentiated.length > 0 ? row.differentiated.join(", ") : "none: zero",
    row.how,
    row.opsets,
    row.limits,
    placement(row.cpu),
    placement(row.cuda),
    placement(row.webGpu),
  ];
}

async function rowOf(operator: string, cases: readonly Case[], unmeasured: string[]): Promise<Row> {
  const differentiated = new Set<string>();
  const cpu: Placements = [];
  const cuda: Placements = [];
  const webGpu: Placements = [];
  const forwards: Part[] = [];
  for (const example of cases) {
    const graphs = await graphsOf(example);
    forwards.push(graphs.forward);
    for (const name of graphs.differentiated) differentiated.add(name);
    // Throws when a kernel is missing.
    await runOnCpu(example, graphs);
    cpu.push({ forward: YES, backward: graphs.backward ? YES : "" });
    const onCuda = async (part: Part | undefined) => (part ? fallingBack(await withoutCudaKernel(part)) : "");
    cuda.push({ forward: await onCuda(graphs.forward), backward: await onCuda(graphs.backward) });
    const result = RESULTS.cases[caseName(example)];
    if (isMeasured(result, graphs)) webGpu.push(measured(example, result));
    else unmeasured.push(caseName(example));
  }
  const how = howOf(operator, forwards);
  return {
    operator,
    differentiated: [...differentiated],
    how,
    opsets: await opsetsOf(cases),
    limits: limitsOf(operator, how),
    cpu: worst(cpu),
    cuda: worst(cuda),
    webGpu: worst(webGpu),
  };
}

const YES = "yes";
const SHAPES = "yes, shapes on CPU";
type Placements = Placement[];

const fallingBack = (operators: readonly string[]) => (operators.length > 0 ? `CPU: ${operators.join(", ")}` : YES);

/** What a device does with all the cases of an operator: everything that is in the way of any. */
function worst(placements: Placements): Placement {
  const of = (key: keyof Placement) => {
    const found = [...new Set(placements.map((placement) => placement[key]).filter(Boolean))];
    const problems = found.filter((text) => text !== YES && text !== SHAPES);
    if (problems.length > 0) return mergeFallbacks(problems);
    return found.includes(SHAPES) ? SHAPES : (found[0] ?? "");
  };
  return { forward: of("forward"), backward: of("backward") };
}

function mergeFallbacks(problems: readonly string[]): string {
  const isFallback = (text: string) => text.startsWith("CPU: ");
  const operators = problems.filter(isFallback).flatMap((text) => text.slice("CPU: ".length).split(", "));
  const merged = operators.length > 0 ? [fallingBack([...new Set(operators)].sort())] : [];
  return [...merged, ...problems.filter((text) => !isFallback(text))].join("; ");
}

function measured(example: Case, { forward, backward }: CaseResult): Placement {
  const told = (result: PartResult | undefined) => {
    if (!result) return "";
    if (result.status === "runs") return YES;
    if (result.status === "runs, shapes on the CPU") return SHAPES;
    if (result.status === "falls back") return `CPU: ${result.reason}`;
    return `**${result.status === "differs" ? "wrong" : "fails"}**${example.variant ? ` (${example.variant})` : ""}: ${result.reason}`;
  };
  return { forward: told(forward), backward: told(backward) };
}

/** What treats the cases of the operator: what the program still contains is differentiated by a rule. */
function howOf(operator: string, forwards: readonly Part[]): string {
  const treat = ({ model }: Part) => {
    const kept = model.graph.node.some(({ opType = "", domain }) => operatorName(opType, domain) === operator);
    if (kept) return "rule";
    return LOWERINGS.some(({ opType }) => opType === operator) ? "lowering" : "opset conversion";
  };
  return [...new Set(forwards.map(treat))].sort().join(", ");
}

function limitsOf(operator: string, how: string): string {
  const rule = RULES.find(({ opType, domain }) => operatorName(opType, domain) === operator);
  return [how === "rule" ? rule?.notes : undefined, LIMITS[operator]].filter(Boolean).join("; ");
}

interface SchemaVersions {
  readonly source: string;
  readonly versions: Readonly<Record<string, readonly number[]>>;
}

const SCHEMAS: SchemaVersions = JSON.parse(readFileSync(new URL("schema-versions.json", import.meta.url), "utf8"));

/** The opsets in which the operator is accepted: from its introduction or the oldest that fishy reads, to the newest that converts. */
async function opsetsOf(cases: readonly Case[]): Promise<string> {
  const { operator, domain } = cases[0] as Case;
  const versions = SCHEMAS.versions[operator];
  if (domain || !versions) return "any";
  const first = Math.max(OLDEST_OPSET, versions[0] as number);
  const removed = versions.findLast((version) => version < 0);
  const again = removed !== undefined && versions.some((version) => version > -removed);
  let last = removed === undefined || again ? NEWEST_OPSET : -removed - 1;
  for (const example of cases) while (last > example.opset && !(await converts(example, last))) last--;
  return first === last ? String(first) : `${first}–${last}`;
}

async function converts(example: Case, opset: number): Promise<boolean> {
  try {
    await inferTypes(await toProgramOpset(modelOfCase({ ...example, opset })));
    return true;
  } catch {
    return false;
  }
}

function introduction(rows: readonly Row[]): string {
  const differentiable = rows.filter(({ differentiated }) => differentiated.length > 0);
  const count = (device: "cuda" | "webGpu", parts: readonly (keyof Placement)[]) =>
    differentiable.filter((row) => parts.every((part) => isAtHome(row[device][part]))).length;
  const both = ["forward", "backward"] as const;
  const { runtime, driver } = RESULTS;
  return `# Operators

<!-- Made by \`node tools/docs/operators.mjs\` from the code. test/docs/operators.test.ts fails when the two differ. -->

What fishy differentiates: ${rows.length} operators, ${differentiable.length} with a gradient and ${rows.length - differentiable.length} whose gradient is zero. A node between a parameter and
the loss that is not among them is refused, with all others in the way; nodes beside that path may be anything that ONNX Runtime runs.

| Of the ${differentiable.length} with a gradient | CPU | CUDA | WebGPU |
| --- | --- | --- | --- |
| backward nodes all have kernels | ${differentiable.length} | ${count("cuda", ["backward"])} | ${count("webGpu", ["backward"])} |
| forward and backward nodes all have kernels | ${differentiable.length} | ${count("cuda", both)} | ${count("webGpu", both)} |

- **Gradient for**: the inputs that have one. Every rule is checked against finite differences (\`test/autodiff\`).
- **By**: a *rule* differentiates the operator; a *lowering* replaces it by primitives first (\`src/rewrite/lower\`); the *opset conversion* brings
  it to opset ${PROGRAM_OPSET} (\`src/onnx/upgrade\`). Calls of model-local functions are inlined first, whatever they are called.
- **Opsets** of the source model that are accepted; of the default domain, unless the operator has a prefix.
- **CPU, CUDA, WebGPU**: whether the nodes of the training program have kernels there, *forward · backward* where the two differ. *CPU: Tan* means that
  Tan has no kernel and falls back to the CPU, between copies; the numbers are the same. *Shapes on CPU*: nodes that compute shapes, or scalars from the
  seed, run on the CPU, which costs next to nothing. **wrong** and **fails** are defects of ONNX Runtime on that device.

The CPU and WebGPU columns were run with ${runtime}, WebGPU on ${driver}, and the results
compared (\`node tools/webgpu/measure.mjs\` writes \`tools/webgpu/results.json\`). The CUDA column was not run: it follows from ONNX Runtime's published
table of kernels (\`src/placement/cuda-kernels.ts\`). All are for float32 and a symbolic batch. An operator that has a kernel nowhere counts by its function
body, which ONNX Runtime puts in its place. The cases behind the table are in \`tools/docs/catalogue.ts\`.
`;
}

function isAtHome(placement: string): boolean {
  return placement === YES || placement === SHAPES;
}
