/** The options of SOAP (Vyas et al. 2024). Names in brackets are those of the authors' `soap.py`. */
import { z } from "zod";
import { decayKinds, sharedOptions, weightDecay } from "../common.js";
import { number, option } from "../options.js";

const decay = number({ min: 0, max: 1, openMax: true });

export const soapOptions = z
  .strictObject({
    name: z.literal("soap"),
    ...sharedOptions(3e-3),
    beta1: option(decay, 0.95, "Decay of the first moment, which is kept in the parameter's own axes."),
    beta2: option(decay, 0.95, "Decay of the second moment, which is kept in the eigenbasis."),
    statisticsBeta: decay.optional().describe("Decay of the statistics L and R; beta2 when left out (shampoo_beta)."),
    epsilon: option(number({ min: 0 }), 1e-8, "Added to the root of the second moment, after its bias correction."),
    weightDecay: option(weightDecay, 1e-2, "wd of weightDecayKind."),
    weightDecayKind: decayKinds("decoupled", "independent"),
    statisticsInterval: option(number({ min: 1, integer: true }), 1, "Steps between updates of the statistics."),
    basisInterval: option(
      number({ min: 1, integer: true, infinite: true }),
      10,
      "Steps between refreshes of the eigenbases, from the first step on (precondition_frequency). Infinity leaves the identity, which is AdamW.",
    ),
    blockSize: option(
      number({ min: 1, integer: true }),
      1024,
      "Longer dimensions are cut into blocks with bases of their own (max_precond_dim leaves them out instead).",
    ),
    blocks: z
      .enum(["balanced", "fixed"])
      .default("balanced")
      .describe("balanced: as few and as equal pieces as possible. fixed: pieces of blockSize and a remainder."),
    mergeDims: z
      .enum(["right", "left", "none"])
      .default("right")
      .describe("Merges neighbouring dimensions, down to a matrix, while their product is at most mergeLimit."),
    mergeLimit: number({ min: 1, integer: true })
      .optional()
      .describe("Largest merged dimension; blockSize when left out."),
    skipDimAbove: option(
      number({ min: 1, integer: true, infinite: true }),
      16384,
      "Parameters with a longer dimension take AdamW's step.",
    ),
    sides: z
      .enum(["all", "leading", "last"])
      .default("all")
      .describe("Which dimensions have a basis: all, all but the last, or only the last."),
  })
  .describe(
    "Adam in the eigenbasis of Shampoo's statistics: G′ = Q_LᵀGQ_R and M′ = Q_LᵀMQ_R, V ← β₂V + (1 − β₂)G′², θ ← θ − lr·Q_L(M′/(√V + ε))Q_Rᵀ with Adam's bias corrections (Vyas et al. 2024). A refresh is one step of orthogonal iteration, Q ← the orthogonal factor of S·Q, by CholeskyQR in float64; the first step starts the bases and moves nothing. Vectors and scalars take AdamW's step.",
  );

export type SoapOptions = z.output<typeof soapOptions>;
