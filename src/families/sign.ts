/** The family of sign on [−1, 1], the limit of steep sigmoids: F* = 0, a truncated exponential. */
import { fenchelYoung } from "./density.js";
import { signDivergence } from "./divergences.js";
import type { Family } from "./family.js";
import { tableFamily } from "./table-family.js";

export function sign(): Family {
  return tableFamily({
    name: "sign",
    density: {
      support: [-1, 1],
      activation: Math.sign,
      divergence: fenchelYoung(() => 0, Math.abs),
    },
    divergence: signDivergence,
    layout: { scale: 2, spread: "both", base: "linear" },
    activation: (b, a) => b.op("Sign", [a]),
  });
}
