/** Local sampling and the sampled backward pass: one reverse walk in which every boundary's cotangent is its sample's. */
import { differentiate } from "../autodiff/reverse.js";
import { FishyError } from "../errors.js";
import type { Draw, Score } from "../families/family.js";
import { pooledRandom } from "../families/pool.js";
import { counterRandom } from "../families/random.js";
import type { GraphBuilder } from "../onnx/builder.js";
import type { GraphProto } from "../onnx/proto.js";
import type { TypeMap } from "../onnx/types.js";
import type { Layer } from "../sections/layers.js";
import type { Boundary, SectionPlan } from "../sections/plan.js";

/** What sampling, and the expectation that can take its place, are given. */
export interface LocalPass {
  readonly b: GraphBuilder;
  /** The forward graph, before backward nodes. */
  readonly forward: GraphProto;
  readonly types: TypeMap;
  readonly plan: SectionPlan;
  readonly layers: readonly Layer[];
  readonly wrt: readonly string[];
  readonly score: Score;
  /** The program's seed input. */
  readonly seed: string;
  /** Float32 scalar. */
  readonly batchSize: string;
  /** Receives the values that start backward passes. */
  readonly cotangents: string[];
  /** ŷ of a boundary, where the graph has it. */
  activationOf(boundary: Boundary): string | undefined;
}

/** The sampled gradient of every parameter: 1/n Σ (y − ŷ), differentiated within its section. */
export function emitSampled(pass: LocalPass, draw: Draw): Map<string, string> {
  const { b, forward, types, plan, wrt, score, batchSize } = pass;
  const cotangents = new Map<string, string>();
  const pools =
    draw === "fast"
      ? b.scope("pool", () =>
          pooledRandom(
            b,
            pass.seed,
            plan.boundaries.map(({ preActivation }) => {
              const last = pass.types.get(preActivation)?.shape?.at(-1);
              return { shape: b.shape(preActivation), ...(typeof last === "number" && { last }) };
            }),
          ),
        )
      : [];
  for (const [i, boundary] of plan.boundaries.entries()) {
    b.scope(`${boundary.name}/sample`, () => {
      const [random, pool] = [counterRandom(pass.seed, i), pools[i]];
      const given = { ...preActivationOf(pass, boundary), random, ...(pool && { pool }), divisor: batchSize };
      cotangents.set(boundary.preActivation, boundary.family.residual(b, { ...given, score, draw }));
    });
  }
  pass.cotangents.push(...cotangents.values());
  return b.scope("sampled", () =>
    differentiate({ builder: b, forward, types, wrt, seeds: cotangents, cut: new Set(cotangents.keys()) }),
  );
}

/** What a family is told of a boundary. */
export function preActivationOf(pass: LocalPass, boundary: Boundary) {
  const a = boundary.preActivation;
  const type = pass.types.get(a);
  if (!type)
    throw new FishyError(`The boundary '${boundary.name}' lies at '${a}', whose type ONNX Runtime does not tell.`);
  const activation = pass.activationOf(boundary);
  return { a, type, ...(activation && { activation }) };
}
