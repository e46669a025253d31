/** The family of softsign on [−1, 1]: F* = −|y| − log(1 − |y|). */
import { fenchelYoung } from "./density.js";
import { softsignDivergence } from "./divergences.js";
import type { Family } from "./family.js";
import { tableFamily } from "./table-family.js";

export function softsign(): Family {
  return tableFamily({
    name: "softsign",
    density: {
      support: [-1, 1],
      kinks: [0],
      activation: (a) => a / (1 + Math.abs(a)),
      divergence: fenchelYoung(
        (y) => -Math.abs(y) - Math.log1p(-Math.abs(y)),
        (a) => Math.abs(a) - Math.log1p(Math.abs(a)),
      ),
    },
    divergence: softsignDivergence,
    layout: { scale: 2, spread: "both", base: "linear" },
    // Primitives: WebGPU has no Softsign.
    activation: (b, a) => b.div(a, b.add(b.abs(a), b.f32(1))),
  });
}
