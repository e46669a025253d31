/** The families in plain TypeScript, and the special functions below them. */
import { describe, expect, test } from "vitest";
import type { ScalarFamily } from "../../src/families/family.js";
import { gaussLegendre } from "../../src/families/quadrature.js";
import { familyByName } from "../../src/families/registry.js";
import { dilogarithm, erf, erfInverse, logAddExp, normalQuantile, softplus } from "../../src/families/special.js";
import { goldenFamilies } from "./support.js";

describe("float64 families agree with 34-digit values", () => {
  test.each(goldenFamilies())("$label", ({ rows, make }) => {
    const family = make();
    const scalar = family.scalar;
    if (!scalar) throw new Error("no scalar family");
    for (const row of rows) {
      const where = `a = ${row.a}`;
      const deviation = Math.sqrt(row.variance);
      expect(Math.abs(scalar.activation(row.a) - row.yhat), where).toBeLessThan(1e-13 * (1 + Math.abs(row.yhat)));
      expect(Math.abs(scalar.mean(row.a) - row.mean) / deviation, where).toBeLessThan(
        1e-9 + (1e-14 * Math.abs(row.mean)) / deviation,
      );
      expect(Math.abs(scalar.variance(row.a) / row.variance - 1), where).toBeLessThan(1e-8);
      // At the mode D = 0, so the log-density is −log Z there.
      if (!scalar.points) expect(scalar.logDensity(row.yhat, row.a), where).toBeCloseTo(-row.logZ, 9);
      for (const [level, value] of Object.entries(row.quantiles)) {
        const error = Math.abs(scalar.quantile(Number(level), row.a) - value);
        const slope = scalar.points ? 1 : Math.exp(scalar.logDensity(value, row.a));
        // In probability, to first order.
        expect(error * Math.min(slope, 1e6), `${where}, quantile ${level}`).toBeLessThan(1e-8);
      }
    }
  });
});

describe("densities integrate to one", () => {
  // The trapezoidal rule on tanh–sinh nodes: independent of the panels that the families use.
  const nodes = Array.from({ length: 1201 }, (_, i) => (i - 600) / 150);

  test.each([
    ["tanh", {}],
    ["sigmoid_continuous", {}],
    ["softsign", {}],
    ["erf", {}],
    ["atan", {}],
    ["sign", {}],
    ["hard_sigmoid", {}],
    ["clip", { min: -0.3, max: 2 }],
  ] as [string, Record<string, number>][])("%s %j", (name, parameters) => {
    const scalar = familyByName(name, parameters).scalar as ScalarFamily;
    const [low, high] = scalar.support;
    for (const a of [-2.5, -0.4, 0, 1.3, 4]) {
      let total = 0;
      for (const t of nodes) {
        const inner = (Math.PI / 2) * Math.sinh(t);
        const y = (low + high) / 2 + ((high - low) / 2) * Math.tanh(inner);
        const slope = ((high - low) / 2) * (Math.PI / 2) * (Math.cosh(t) / Math.cosh(inner) ** 2);
        if (slope > 0) total += (Math.exp(scalar.logDensity(y, a)) * slope) / 150;
      }
      expect(total).toBeCloseTo(1, 6);
    }
  });

  test("outside the support there is nothing", () => {
    expect(familyByName("relu").scalar?.logDensity(-0.1, 1)).toBe(-Infinity);
    expect(familyByName("bernoulli").scalar?.logDensity(0.5, 1)).toBe(-Infinity);
  });

  test("two points: probabilities sum to one", () => {
    for (const name of ["bernoulli", "tanh_two_point"]) {
      const scalar = familyByName(name).scalar;
      for (const a of [-40, -1, 0, 3]) {
        const total = (scalar?.points ?? []).reduce((sum, y) => sum + Math.exp(scalar?.logDensity(y, a) as number), 0);
        expect(total).toBeCloseTo(1, 14);
      }
    }
  });
});

describe("clip with one bound, with wide bounds, and with none", () => {
  test.each([
    [{ min: -2 }, { min: -2, max: 40 }, [-6, -2, -1, 3]],
    [{ max: 1.5 }, { min: -40, max: 1.5 }, [-3, 1, 1.5, 7]],
    [{ min: 0, max: 13 }, { min: 0, max: 13.000001 }, [-1, 0, 6.5, 12, 15]],
  ] as [Record<string, number>, Record<string, number>, number[]][])("%j is like %j", (one, other, values) => {
    const [x, y] = [familyByName("clip", one).scalar, familyByName("clip", other).scalar];
    for (const a of values) {
      expect(x?.mean(a)).toBeCloseTo(y?.mean(a) as number, 5);
      expect(x?.variance(a)).toBeCloseTo(y?.variance(a) as number, 5);
    }
  });

  test("without bounds it is linear", () => {
    expect(familyByName("clip").name).toBe("gaussian");
  });
});

describe("special functions", () => {
  // Values to 16 digits from mpmath.
  test.each([
    [0.1, 0.1124629160182849],
    [0.5, 0.5204998778130465],
    [1, 0.8427007929497149],
    [2.4, 0.999311486103355],
    [2.6, 0.9997639655834707],
    [4, 0.9999999845827421],
  ])("erf(%d)", (x, value) => {
    expect(erf(x)).toBeCloseTo(value, 15);
    expect(erf(-x)).toBe(-erf(x));
    if (x < 2.5) expect(erfInverse(value)).toBeCloseTo(x, 12);
  });

  test.each([
    [1e-10, -6.361340902404056],
    [0.001, -3.090232306167813],
    [0.1, -1.2815515655446004],
    [0.5, 0],
    [0.975, 1.959963984540054],
  ])("normal quantile of %d", (p, value) => {
    expect(normalQuantile(p)).toBeCloseTo(value, 12);
  });

  test.each([
    [-1, -(Math.PI ** 2) / 12],
    [-0.5, -0.4484142069236462],
    [0.25, 0.2676526390827326],
    [0.5, Math.PI ** 2 / 12 - Math.LN2 ** 2 / 2],
    [0.9, 1.2997147230049588],
    [1, Math.PI ** 2 / 6],
  ])("dilogarithm of %d", (x, value) => {
    expect(dilogarithm(x)).toBeCloseTo(value, 14);
  });

  test("sums of exponentials do not overflow", () => {
    expect(softplus(1000)).toBe(1000);
    expect(softplus(-1000)).toBe(0);
    expect(logAddExp(-Infinity, -Infinity)).toBe(-Infinity);
    expect(logAddExp(1, 2)).toBeCloseTo(Math.log(Math.E + Math.E ** 2), 15);
  });

  test("Gauss–Legendre rules are exact for polynomials of degree 2n − 1", () => {
    for (const n of [4, 8, 24]) {
      const { nodes, weights } = gaussLegendre(n);
      for (const degree of [0, 1, 2 * n - 2, 2 * n - 1]) {
        const sum = nodes.reduce((total, x, i) => total + (weights[i] as number) * x ** degree, 0);
        expect(sum).toBeCloseTo(1 / (degree + 1), 14);
      }
    }
  });
});
