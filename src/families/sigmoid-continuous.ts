/** The sigmoid's family on [0, 1] with Lebesgue measure. The paper takes the two-point family instead (`bernoulli.ts`). */
import { fenchelYoung } from "./density.js";
import { sigmoidDivergence } from "./divergences.js";
import type { Family } from "./family.js";
import { logistic, softplus, xLogX } from "./special.js";
import { tableFamily } from "./table-family.js";

export function sigmoidContinuous(): Family {
  return tableFamily({
    name: "sigmoid_continuous",
    density: {
      support: [0, 1],
      activation: logistic,
      divergence: fenchelYoung((y) => xLogX(y) + xLogX(1 - y), softplus),
    },
    divergence: sigmoidDivergence,
    layout: { scale: 4, spread: "both", base: "linear" },
    activation: (b, a) => b.op("Sigmoid", [a]),
  });
}
