/** The family of the error function on [−1, 1]: F* = (1 − exp(−erf⁻¹(y)²))/√π. */
import { fenchelYoung } from "./density.js";
import { erfDivergence } from "./divergences.js";
import type { Family } from "./family.js";
import { erfInverse, erf as erfOf } from "./special.js";
import { tableFamily } from "./table-family.js";

const ROOT_PI = Math.sqrt(Math.PI);

export function erf(): Family {
  return tableFamily({
    name: "erf",
    density: {
      support: [-1, 1],
      activation: erfOf,
      divergence: fenchelYoung(
        (y) => -Math.expm1(-(erfInverse(y) ** 2)) / ROOT_PI,
        (a) => a * erfOf(a) + Math.expm1(-a * a) / ROOT_PI,
      ),
    },
    divergence: erfDivergence,
    layout: { scale: 2, spread: "both", base: "linear" },
    activation: (b, a) => b.op("Erf", [a]),
  });
}
