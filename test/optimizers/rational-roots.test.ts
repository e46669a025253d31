/** Inverse roots by rational approximation: the approximation itself, and the inverses that it is made of. */
import { describe, expect, it } from "vitest";
import { DataType } from "../../src/onnx/proto.js";
import { planRational } from "../../src/optimizers/shampoo/rational-roots.js";
import { evaluateRound } from "../../src/optimizers/shampoo/rounds.js";
import { emitTiledInverse } from "../../src/optimizers/shampoo/tiled-inverse.js";
import { Tiling } from "../../src/optimizers/shampoo/tiles.js";
import { rationalRoot } from "../../src/optimizers/shampoo/zolotarev.js";
import { f32, modelOf, newBuilder, runModel } from "../support/run.js";

function evaluate({ poles }: ReturnType<typeof rationalRoot>, x: number): number {
  return poles.reduce((sum, { shift, weight }) => sum + weight / (x + shift), 0);
}

function grid(l: number, count: number): number[] {
  return Array.from({ length: count + 1 }, (_, i) => l ** (1 - i / count));
}

describe("Zolotarev's approximation of the inverse square root", () => {
  it.each([0.5, 1e-2, 1e-6, 1e-12])("on [%d, 1] stays between its lowest value and 1, and alternates", (l) => {
    for (const count of [1, 2, 4, 7]) {
      const root = rationalRoot(l, count);
      for (const { shift, weight } of root.poles) {
        expect(shift).toBeGreaterThan(0);
        expect(weight).toBeGreaterThan(0);
      }
      const values = grid(l, 9973).map((x) => Math.sqrt(x) * evaluate(root, x));
      expect(Math.min(...values)).toBeGreaterThanOrEqual(root.lowest);
      expect(Math.max(...values)).toBeLessThanOrEqual(1);
      // The best approximation: 2·count + 1 extrema, all of one size (Chebyshev's criterion).
      const extrema = values.filter((value, i) => {
        const [before, after] = [values[i - 1], values[i + 1]];
        if (before === undefined || after === undefined) return true;
        return value !== before && (value - before) * (after - value) <= 0;
      });
      const [middle, size] = [(1 + root.lowest) / 2, (1 - root.lowest) / 2];
      // What they may miss of the bounds: the slack of those, and the grid.
      if (size < 1e-2) continue;
      expect(extrema.length).toBe(2 * count + 1);
      for (const [i, value] of extrema.entries()) {
        expect(Math.abs((value - middle) / size - (i % 2 === 0 ? -1 : 1))).toBeLessThan(5e-3);
      }
    }
  });
});

describe("the plan of a rational root", () => {
  const CASES = [2, 4, 8].flatMap((p) => [0.2, 1e-4, 3e-7].map((l) => ({ p, l })));

  it.each(CASES)("p = $p, l = $l: ends within the tolerance of x^(−1/p) on [l, 1]", ({ p, l }) => {
    for (const tolerance of [1e-4, 2e-7, 1e-9]) {
      const plan = planRational(p, l, tolerance);
      if (!plan) throw new Error("there is a plan");
      for (const x of grid(l, 500)) {
        let [value, h] = [x, 1];
        for (const stage of plan.stages) {
          h = evaluate(stage, value);
          value *= h;
        }
        const m = x * (h * plan.scale) ** p;
        expect(m).toBeLessThanOrEqual(1);
        const root = h * plan.scale * evaluateRound(plan.last, m);
        // Within the tolerance for D·Hᵖ, to first order.
        expect(Math.abs(x * root ** p - 1)).toBeLessThan(1.01 * tolerance);
      }
    }
  });

  it("takes four poles for the default ridge, and leaves other roots to the iteration", () => {
    expect(planRational(2, 1e-6 / 2.6, 2e-7)?.stages.map(({ poles }) => poles.length)).toEqual([4]);
    for (const p of [1, 3, 6, 16]) expect(planRational(p, 1e-6, 2e-7)).toBeUndefined();
  });
});

describe("the inverse in tiles", () => {
  /** The largest entry of X·A − I, for A of norm 1/2 and rank 2, with `ridge` on its diagonal. */
  async function errorOf(size: number, ridge: number, refined: boolean): Promise<number> {
    const b = newBuilder();
    b.input("s", { elemType: DataType.FLOAT, shape: [size, size] });
    const tiling = new Tiling(size, DataType.DOUBLE);
    const a = tiling.shift(b, tiling.split(b, b.cast("s", DataType.DOUBLE)), ridge);
    const inverse = tiling.join(b, emitTiledInverse(b, tiling, a, refined));
    const full = tiling.join(b, a);
    const error = b.sub(b.matMul(inverse, full), b.op("EyeLike", [full]));
    const largest = b.reduce("ReduceMax", b.abs(error), undefined, false);
    b.output(largest, { elemType: DataType.DOUBLE, shape: [] });
    // Of rank 2, so that all but two eigenvalues are the ridge.
    const data = Float32Array.from(
      { length: size * size },
      (_, k) => Math.cos(Math.floor(k / size) - (k % size)) / size,
    );
    const out = await runModel(modelOf(b.graph), { s: f32(data, [size, size]) });
    return Number(out[largest]?.data[0]);
  }

  it.each([192, 500, 784])("of size %d is good to what the condition allows", async (size) => {
    expect(await errorOf(size, 1e-2, false)).toBeLessThan(1e-12);
    expect(await errorOf(size, 1e-6, true)).toBeLessThan(1e-9);
  });

  it("needs its refinement where the condition is large", async () => {
    expect(await errorOf(500, 1e-6, false)).toBeGreaterThan(100 * (await errorOf(500, 1e-6, true)));
  });
});
