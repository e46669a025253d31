/** The family of softplus on [0, ∞): F* = y²/2 + Li₂(e⁻ʸ) − π²/6. */
import { fenchelYoung } from "./density.js";
import { softplusDivergence } from "./divergences.js";
import type { Family } from "./family.js";
import { dilogarithm, softplus as softplusOf } from "./special.js";
import { tableFamily } from "./table-family.js";

const ZETA_2 = Math.PI ** 2 / 6;

export function softplus(): Family {
  return tableFamily({
    name: "softplus",
    density: {
      support: [0, Number.POSITIVE_INFINITY],
      activation: softplusOf,
      divergence: fenchelYoung(
        (y) => (y * y) / 2 + dilogarithm(Math.exp(-y)) - ZETA_2,
        (a) => {
          const folded = dilogarithm(-Math.exp(-Math.abs(a)));
          return a < 0 ? -folded : (a * a) / 2 + ZETA_2 + folded;
        },
      ),
    },
    divergence: softplusDivergence,
    layout: { scale: 3, spread: "below", base: "activation" },
    activation: (b, a) => b.op("Softplus", [a]),
  });
}
