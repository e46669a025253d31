/** The family of Relu: N(a, 1) truncated to [0, ∞), the limit of leaky Relu for a slope of 0. */
import { fenchelYoung } from "./density.js";
import { truncatedDivergence } from "./divergences.js";
import type { Family } from "./family.js";
import { tableFamily } from "./table-family.js";

export function relu(): Family {
  return tableFamily({
    name: "relu",
    density: {
      support: [0, Number.POSITIVE_INFINITY],
      activation: (a) => Math.max(a, 0),
      divergence: fenchelYoung(
        (y) => (y * y) / 2,
        (a) => Math.max(a, 0) ** 2 / 2,
      ),
    },
    divergence: truncatedDivergence(1, 0, 0, Number.POSITIVE_INFINITY),
    layout: { scale: 2, spread: "below", base: "activation" },
    activation: (b, a) => b.op("Relu", [a]),
  });
}
