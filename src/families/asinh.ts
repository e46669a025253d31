/** The family of asinh on the real line: F* = cosh y − 1. */
import { fenchelYoung } from "./density.js";
import { asinhDivergence } from "./divergences.js";
import type { Family } from "./family.js";
import { tableFamily } from "./table-family.js";

export function asinh(): Family {
  return tableFamily({
    name: "asinh",
    density: {
      support: [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY],
      activation: Math.asinh,
      divergence: fenchelYoung(
        (y) => Math.cosh(y) - 1,
        (a) => a * Math.asinh(a) - Math.sqrt(1 + a * a) + 1,
      ),
    },
    divergence: asinhDivergence,
    layout: { scale: 4, spread: "root", base: "activation" },
    activation: (b, a) => b.op("Asinh", [a]),
  });
}
