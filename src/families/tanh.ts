/** The family of tanh on [−1, 1] with Lebesgue measure: the paper's Figure 1. */
import { fenchelYoung } from "./density.js";
import { tanhDivergence } from "./divergences.js";
import type { Family } from "./family.js";
import { logAddExp, xLogX } from "./special.js";
import { tableFamily } from "./table-family.js";

export function tanh(): Family {
  return tableFamily({
    name: "tanh",
    density: {
      support: [-1, 1],
      activation: Math.tanh,
      divergence: fenchelYoung(
        (y) => (xLogX(1 + y) + xLogX(1 - y)) / 2,
        (a) => logAddExp(a, -a) - Math.LN2,
      ),
    },
    divergence: tanhDivergence,
    layout: { scale: 2, spread: "both", base: "linear" },
    activation: (b, a) => b.op("Tanh", [a]),
  });
}
