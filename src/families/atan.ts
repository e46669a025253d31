/** The family of atan on [−π/2, π/2]: F* = −log cos y. */
import { fenchelYoung } from "./density.js";
import { atanDivergence } from "./divergences.js";
import type { Family } from "./family.js";
import { tableFamily } from "./table-family.js";

export function atan(): Family {
  return tableFamily({
    name: "atan",
    density: {
      support: [-Math.PI / 2, Math.PI / 2],
      activation: Math.atan,
      divergence: fenchelYoung(
        (y) => -Math.log(Math.max(Math.cos(y), 0)),
        (a) => a * Math.atan(a) - Math.log1p(a * a) / 2,
      ),
    },
    divergence: atanDivergence,
    layout: { scale: 2, spread: "both", base: "linear" },
    activation: (b, a) => b.op("Atan", [a]),
  });
}
