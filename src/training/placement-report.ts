/** Where the nodes of a training step would run on a GPU, told before a run. Needs no GPU. */
import { UsageError } from "../errors.js";
import type { ModelProto } from "../onnx/proto.js";
import { createOptimizer } from "../optimizers/registry.js";
import { GPU_NAMES, type Gpu } from "../placement/kernel-table.js";
import { type MisplacedNode, placementOf } from "../placement/placement.js";
import { readManifest, type TrainingProgram } from "../rewrite/manifest.js";
import { type RewriteOptions, rewrite } from "../rewrite/rewrite.js";
import { buildBoundGraph } from "./bound-graph.js";
import { wantedInputs } from "./inputs.js";
import { buildStepGraph } from "./step-graph.js";

export interface PlacementReport {
  readonly device: Gpu;
  /** Whose step it is: `fishy` where the program samples, else `shampoo`. All parts of the step count. */
  readonly optimizer: "fishy" | "shampoo";
  readonly nodes: number;
  /** Of them, nodes that run on the CPU as they should: shapes, scalars from the seed, what WebGPU lacks and data alone decides. */
  readonly onHost: number;
  readonly misplaced: readonly MisplacedNode[];
}

/** Examples of a batch, and other symbolic dimensions of the inputs, where nothing is said. */
const DEFAULT_BATCH = 64;
const DEFAULT_SIZE = 16;

/**
 * The placement of a training step by ONNX Runtime's tables of kernels (CUDA) and by measurement (WebGPU).
 * @param source a source model, or a training program, which `options` then do not change.
 * @param sizes numbers for symbolic dimensions; default 64 for the first of an input and 16 for others.
 * @throws FishyError as `rewrite` does, and for float64 and integers beyond int32 on WebGPU.
 */
export async function reportPlacement(
  source: ModelProto,
  device: Gpu,
  options: RewriteOptions = {},
  sizes: ReadonlyMap<string, number> = new Map(),
): Promise<PlacementReport> {
  const manifest = readManifest(source);
  const program: TrainingProgram = manifest ? { model: source, manifest } : await rewrite(source, options);
  const name = program.manifest.sections.length > 0 ? "fishy" : "shampoo";
  const optimizer = createOptimizer({ name }, program.manifest.parameters);
  const shapes = shapesOf(program, sizes);
  const parts = { statistics: true, roots: true };
  if (device === "webgpu") {
    const bound = await buildBoundGraph(program, optimizer, { parts, shapes, accepts: "defects" });
    const onHost = bound.host?.graph.node.length ?? 0;
    const nodes = bound.model.graph.node.length + onHost;
    return { device, optimizer: name, nodes, onHost, misplaced: bound.misplaced };
  }
  const { model } = buildStepGraph(program, optimizer, { parts, shapes, device });
  const { nodes, shapeNodes, misplaced } = await placementOf(model, device, [program.manifest.seed]);
  return { device, optimizer: name, nodes, onHost: shapeNodes, misplaced };
}

function shapesOf(program: TrainingProgram, sizes: ReadonlyMap<string, number>): Map<string, readonly number[]> {
  const symbols = new Set<string>();
  const shapes = new Map<string, readonly number[]>();
  for (const { name, shape } of wantedInputs(program)) {
    if (!shape) throw new UsageError(`The rank of the input '${name}' is not known, so its nodes cannot be placed.`);
    for (const dim of shape) if (typeof dim === "string") symbols.add(dim);
    // A dimension without a name, such as one of the target's, follows from those of other inputs.
    if (shape.includes(null)) continue;
    const numbers = shape.map((dim, axis) =>
      typeof dim === "number" ? dim : (sizes.get(dim ?? "") ?? (axis === 0 ? DEFAULT_BATCH : DEFAULT_SIZE)),
    );
    shapes.set(name, numbers);
  }
  const unknown = [...sizes.keys()].find((name) => !symbols.has(name));
  if (unknown !== undefined) {
    throw new UsageError(
      `No input has the symbolic dimension '${unknown}'. There are: ${[...symbols].join(", ") || "none"}.`,
    );
  }
  return shapes;
}

const VERDICTS = {
  "falls back": "run on the CPU, between two copies",
  fails: "end the run",
  wrong: "give wrong numbers",
} as const;

/** The report as text. */
export function formatPlacement({ device, optimizer, nodes, onHost, misplaced }: PlacementReport): string {
  const gpu = GPU_NAMES[device];
  const host = onHost > 0 ? `; ${onHost} of them, for shapes, the seed and data as they come, are the host's` : "";
  const head = `A step of ${optimizer} on ${gpu}: ${nodes} nodes${host}.`;
  if (misplaced.length === 0) return `${head}\nEvery other node has a kernel there.`;
  const groups = (Object.keys(VERDICTS) as (keyof typeof VERDICTS)[]).flatMap((verdict) => {
    const own = misplaced.filter((node) => node.verdict === verdict);
    if (own.length === 0) return [];
    const lines = own.map(({ name, what, reason }) => `  ${what}  '${name}': ${reason}`);
    return [`${own.length} ${VERDICTS[verdict]}:\n${lines.join("\n")}`];
  });
  return [head, ...groups].join("\n");
}
