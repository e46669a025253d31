/** A root that misses its threshold is tried again with a larger ridge. */
import type { GraphBuilder, ValueType } from "../../onnx/builder.js";
import { DataType } from "../../onnx/proto.js";
import { type Arithmetic, any } from "./arithmetic.js";
import { emitLoop } from "./loop.js";
import type { ShampooOptions } from "./options.js";

export interface Attempt {
  /** The root, in one value or in several. */
  readonly root: readonly string[];
  readonly residual: string;
  readonly iterations: string;
}

export interface Tries extends Attempt {
  readonly ok: string;
  readonly retries: string;
  readonly ridge: string;
}

/**
 * Tries again, with ten times the ridge, as long as a matrix of the stack has no root.
 * @param matrices values of the types that the root has.
 */
export function emitTries(
  b: GraphBuilder,
  a: Arithmetic,
  matrices: readonly string[],
  types: readonly ValueType[],
  ridge: string,
  options: ShampooOptions["root"],
  attempt: (b: GraphBuilder, ridge: string) => Attempt,
): Tries {
  const accept = (inner: GraphBuilder, residual: string) =>
    inner.op("LessOrEqual", [residual, a.constant(inner, options.threshold)]);
  if (options.retries === 0) {
    const only = attempt(b, ridge);
    return { ...only, ok: accept(b, only.residual), retries: a.filled(b, 0), ridge };
  }
  const parts = Object.fromEntries(matrices.map((value, i) => [`root${i}`, { value, type: types[i] as ValueType }]));
  const rootOf = (values: Readonly<Record<string, string>>) => matrices.map((_, i) => values[`root${i}`] as string);
  const result = emitLoop<string>(
    b,
    options.retries + 1,
    {
      ...parts,
      residual: { value: a.filled(b, 0), type: a.scalars },
      iterations: { value: a.filled(b, 0), type: a.scalars },
      ridge: { value: b.mul(ridge, a.filled(b, 1)), type: a.scalars },
      tries: { value: a.filled(b, -1), type: a.scalars },
      ok: { value: a.never(b), type: { elemType: DataType.BOOL, shape: a.scalars.shape } },
    },
    (inner, values) => {
      const before = values as Record<"residual" | "iterations" | "ridge" | "tries" | "ok", string>;
      const next = attempt(inner, before.ridge);
      // A matrix alone is not tried again once it has its root.
      const keep = (old: string, fresh: string) => ((a.count ?? 1) === 1 ? fresh : inner.where(before.ok, old, fresh));
      const ok = inner.op("Or", [before.ok, accept(inner, next.residual)]);
      const roots = rootOf(values).map((old, i) => [`root${i}`, keep(old, next.root[i] as string)]);
      return {
        again: any(inner, inner.op("Not", [ok])),
        values: {
          ...Object.fromEntries(roots),
          residual: keep(before.residual, next.residual),
          iterations: keep(before.iterations, next.iterations),
          ridge: inner.where(ok, before.ridge, inner.mul(before.ridge, a.constant(inner, 10))),
          tries: keep(before.tries, inner.add(before.tries, a.constant(inner, 1))),
          ok,
        },
      };
    },
  ) as Record<"residual" | "iterations" | "ridge" | "tries" | "ok", string>;
  return { ...result, root: rootOf(result), retries: result.tries };
}

/** The same as branches, one inside the other, where there is no Loop. Bools leave a branch as floats, which all devices copy. */
export function emitBranchedTries(
  b: GraphBuilder,
  a: Arithmetic,
  _matrices: readonly string[],
  _types: readonly ValueType[],
  ridge: string,
  options: ShampooOptions["root"],
  attempt: (b: GraphBuilder, ridge: string) => Attempt,
): Tries {
  const accept = (inner: GraphBuilder, residual: string) =>
    inner.cast(inner.op("LessOrEqual", [residual, a.constant(inner, options.threshold)]), a.type);
  const keys = ["root", "residual", "iterations", "ridge", "retries", "accepted"] as const;
  type State = Record<(typeof keys)[number], string>;
  const single = ({ root, ...rest }: Attempt) => ({ root: root[0] as string, ...rest });
  const first = single(attempt(b, ridge));
  let state: State = {
    ...first,
    iterations: b.mul(first.iterations, a.filled(b, 1)),
    ridge: b.mul(ridge, a.filled(b, 1)),
    retries: a.filled(b, 0),
    accepted: accept(b, first.residual),
  };
  for (let retry = 0; retry < options.retries; retry++) {
    const before = state;
    const branch = (name: string, build: (inner: GraphBuilder) => State) => {
      const inner = b.subgraph(name);
      const values = build(inner);
      for (const key of keys) {
        inner.output(inner.op("Identity", [values[key]]), key === "root" ? a.matrices : a.scalars);
      }
      return inner.graph;
    };
    const again = (inner: GraphBuilder): State => {
      const done = inner.greater(before.accepted, a.constant(inner, 0.5));
      const keep = (old: string, fresh: string) => inner.where(done, old, fresh);
      const larger = keep(before.ridge, inner.mul(before.ridge, a.constant(inner, 10)));
      const next = single(attempt(inner, larger));
      return {
        root: keep(before.root, next.root),
        residual: keep(before.residual, next.residual),
        iterations: keep(before.iterations, next.iterations),
        ridge: larger,
        retries: keep(before.retries, inner.add(before.retries, a.constant(inner, 1))),
        accepted: inner.max(before.accepted, accept(inner, next.residual)),
      };
    };
    const worst = b.reduce("ReduceMin", before.accepted, undefined, false);
    const outputs = b.node("If", [b.less(worst, a.constant(b, 0.5))], {
      name: "retry",
      outputs: keys.length,
      attributes: { then_branch: branch("again", again), else_branch: branch("done", () => before) },
    });
    state = Object.fromEntries(keys.map((key, i) => [key, outputs[i]])) as State;
  }
  return { ...state, root: [state.root], ok: b.greater(state.accepted, a.constant(b, 0.5)) };
}
