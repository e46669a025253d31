/**
 * The options of Shampoo (Gupta, Koren and Singer 2018; Anil et al. 2020), FIM Shampoo and Fishy: one optimizer whose
 * statistics come from different gradients. Names in brackets are those of Google's `scalable_shampoo` (G) and Meta's
 * `distributed_shampoo` (M), where they differ.
 */
import { z } from "zod";
import { sharedOptions } from "../common.js";
import { number, option } from "../options.js";
import { exactFraction } from "./fraction.js";

const exponentNumber = number({ min: 0, openMin: true }).refine((p) => exactFraction(p) !== undefined, {
  error: "must be an integer up to 32, or a ratio n/d with n up to 32 and d up to 8",
});

export const rootOptions = z.strictObject({
  solver: z
    .enum(["newton", "higher-order"])
    .default("higher-order")
    .describe(
      "newton: the coupled Newton iteration. higher-order: the coupled iteration with polynomials of degree 4 (of 2 in blocks below 192) instead of 1: fewer, larger steps, and about a quarter less work (M: CoupledHigherOrder). Both take, in each step, the polynomial that is best for the interval that holds the spectrum.",
    ),
  precision: z
    .enum(["float64", "float32"])
    .default("float64")
    .describe("Arithmetic of the roots; they are stored in float32. float32 needs epsilon of 1e-6 or more."),
  tolerance: option(
    number({ min: 1e-14, max: 0.1 }),
    1e-6,
    "How far from 1 the eigenvalues of D·Hᵖ may be when the iteration ends, in exact arithmetic.",
  ),
  maxIterations: option(number({ min: 1, integer: true }), 100, "Of the iteration; the bounds of the spectrum decide."),
  threshold: option(
    number({ min: 0, openMin: true }),
    0.1,
    "Largest true residual max|D·Hᵖ − I| of a root that is used (G: inverse_failure_threshold). A root over it, or not finite, keeps the previous preconditioner.",
  ),
  retries: option(
    number({ min: 0, max: 10, integer: true }),
    2,
    "How often a failed root is tried again with ten times the ridge.",
  ),
});

const shape = {
  preset: z
    .enum(["google", "meta", "paper"])
    .optional()
    .describe("Published settings to start from (see presets.ts); options given beside it win."),
  ...sharedOptions(1e-3),
  momentum: option(number({ min: 0, max: 1, openMax: true }), 0.9, "β₁ of the momentum; 0 keeps no buffer."),
  momentumKind: z
    .enum(["ema", "heavy-ball"])
    .default("ema")
    .describe(
      "ema: m ← β₁m + (1 − β₁)x, divided by 1 − β₁ᵗ. heavy-ball: m ← β₁m + x (G: moving_average_for_momentum).",
    ),
  momentumOrder: z
    .enum(["after", "before"])
    .default("after")
    .describe(
      "after: momentum of the preconditioned and grafted step (G). before: of the gradient that is preconditioned (M).",
    ),
  momentumBiasCorrection: z.boolean().default(true).describe("Whether ema is divided by 1 − β₁ᵗ (M yes, G no)."),
  nesterov: z.boolean().default(false).describe("β₁m + w·x instead of m, w being 1 − β₁ for ema and 1 for heavy-ball."),
  beta2: option(
    number({ min: 0, max: 1, openMin: true }),
    0.95,
    "Decay of the statistics: S ← β₂S + (1 − β₂)·GGᵀ; 1 sums (S ← S + GGᵀ), as Shampoo first did.",
  ),
  statisticsInit: option(number({ min: 0 }), 0, "Statistics start as this multiple of I (G: matrix_epsilon, M: 0)."),
  statisticsBiasCorrection: z
    .boolean()
    .default(true)
    .describe("Divides the statistics by 1 − β₂ᵗ before the root, t counting their updates (M yes, G no)."),
  epsilon: option(
    number({ min: 0 }),
    1e-6,
    "The ridge added before the root (G: matrix_epsilon). Statistics themselves never change.",
  ),
  epsilonKind: z
    .enum(["relative", "absolute"])
    .default("relative")
    .describe("relative: ridge = epsilon·λ_max, which bounds the condition number by 1/epsilon (G). absolute (M)."),
  exponent: z
    .union([exponentNumber, z.record(z.string().regex(/^[1-9]$/), exponentNumber)], {
      error: "must be a positive number p, or an object from the number of preconditioned dimensions to p",
    })
    .optional()
    .describe(
      "p of M^(−1/p), the same for each side. Default with k preconditioned dimensions: 2k for shampoo (−1/4 each side of a matrix), k for fishy and fim-shampoo (−1/2). An object sets it by k, such as { 1: 2, 2: 3 } (G: exponent_override; M: by order).",
    ),
  traceFactor: z
    .boolean()
    .default(false)
    .describe(
      "Takes the statistics for the factors of F ≈ ⊗S_i / tr(F)^(k−1) and scales the direction by tr(F)^((k−1)/p): with exponent 1 and centred samples it is F⁻¹G where F is separable. Matters only without a graft.",
    ),
  diagnostics: z
    .boolean()
    .default(false)
    .describe(
      "Metrics at each update of sampled statistics: norms of the true and of the sampled gradient, and their cosine.",
    ),
  blockSize: option(
    number({ min: 1, integer: true }),
    1024,
    "Longer dimensions are cut into blocks with statistics of their own.",
  ),
  blocks: z
    .enum(["balanced", "fixed"])
    .default("balanced")
    .describe("balanced: as few and as equal pieces as possible. fixed: pieces of blockSize and a remainder (G, M)."),
  mergeDims: z
    .enum(["right", "left", "none"])
    .default("right")
    .describe(
      "Merges neighbouring dimensions while their product is at most mergeLimit, from the right (M) or the left (G). Dimensions of 1 vanish unless none.",
    ),
  mergeLimit: number({ min: 1, integer: true })
    .optional()
    .describe("Largest merged dimension; blockSize when left out (G: merge_small_dims_block_size)."),
  mergeRank: option(
    number({ min: 1, integer: true }),
    2,
    "Merging stops at this rank, so a small matrix stays a matrix (M: target_parameter_dimensionality). 1 lets it become a vector (G).",
  ),
  skipRankBelow: option(
    number({ min: 0, integer: true }),
    2,
    "Parameters of lower rank after merging take the graft's step: biases and scales by default.",
  ),
  skipDimAbove: option(
    number({ min: 1, integer: true, infinite: true }),
    16384,
    "Parameters with a longer dimension take the graft's step (G: skip_preconditioning_dim_size_gt).",
  ),
  sides: z
    .enum(["all", "leading", "last"])
    .default("all")
    .describe("Which dimensions are preconditioned: all, all but the last (G: INPUT), or only the last (G: OUTPUT)."),
  statisticsInterval: option(number({ min: 1, integer: true }), 1, "Steps between updates of the statistics."),
  rootInterval: option(number({ min: 1, integer: true }), 10, "Steps between refreshes of the roots."),
  rootSchedule: z
    .enum(["from-start", "from-first-step", "multiples"])
    .default("from-start")
    .describe(
      "Refreshes at startStep + k·rootInterval; at 1 + k·rootInterval (G); or at startStep and multiples of rootInterval (M).",
    ),
  startStep: option(
    number({ min: 1, integer: true, infinite: true }),
    10,
    "The first step (from 1) that is preconditioned; the graft steps before. Infinity never preconditions.",
  ),
  graft: z
    .enum([
      "none",
      "sgd",
      "sgd-normalized",
      "adagrad",
      "adagrad-normalized",
      "rmsprop",
      "rmsprop-normalized",
      "adam",
      "sqrt-n",
    ])
    .default("adam")
    .describe(
      "The optimizer whose step length Shampoo's direction takes: sgd g; adagrad g/(√Σg² + ε); rmsprop g/(√v + ε); adam g/(√(v/(1 − β₂ᵗ)) + ε); sqrt-n sign(g); normalized forms take g/‖g‖.",
    ),
  graftBeta2: option(number({ min: 0, max: 1, openMin: true }), 0.999, "Decay of the graft's second moment."),
  graftEpsilon: option(number({ min: 0 }), 1e-8, "Added to the root of the graft's second moment."),
  graftNorm: z
    .enum(["tensor", "block"])
    .default("tensor")
    .describe("Whether the step length is that of the whole parameter (G) or of each block (M)."),
  weightDecay: option(number({ min: 0 }), 0, "wd of weightDecayKind."),
  weightDecayKind: z
    .enum(["l2", "coupled", "decoupled", "independent"])
    .default("decoupled")
    .describe(
      "l2: wd·θ is added to the true gradient. coupled: to the preconditioned, grafted step, before momentum (G). decoupled: θ ← (1 − lr·wd)θ, with lr once. independent: θ ← (1 − s·wd)θ, s the schedule's multiplier alone.",
    ),
  root: rootOptions.prefault({}).describe("How inverse roots are computed."),
};

type Name = "shampoo" | "fim-shampoo" | "fishy";

function schema<N extends Name>(name: N, description: string) {
  return z
    .strictObject({ name: z.literal(name), ...shape })
    .refine((options) => options.momentum > 0 || !options.nesterov, {
      path: ["nesterov"],
      error: "must be false unless momentum is above 0",
    })
    .refine(
      (options) =>
        options.root.precision === "float64" || options.epsilonKind === "absolute" || options.epsilon >= 1e-6,
      {
        path: ["epsilon"],
        error: "must be at least 1e-6 when roots are computed in float32",
      },
    )
    .refine((options) => options.epsilonKind === "absolute" || options.epsilon > 0, {
      path: ["epsilon"],
      error: "must be above 0 when it is relative",
    })
    .describe(description);
}

/** Shampoo: statistics from the true gradient, exponents −1/(2k). */
export const shampooOptions = schema(
  "shampoo",
  "L ← β₂L + (1 − β₂)GGᵀ, R ← β₂R + (1 − β₂)GᵀG, and the step goes along L^(−1/4)·G·R^(−1/4) with the length of the graft's (Gupta, Koren and Singer 2018; Anil et al. 2020); a tensor has one such matrix for each dimension.",
);
/** FIM Shampoo: statistics from gradients of labels sampled from the model's own output, exponents −1/k. */
export const fimShampooOptions = schema(
  "fim-shampoo",
  "Shampoo whose statistics come from gradients of labels sampled from the model's own output, so that they are of the Fisher information matrix, with L^(−1/2)·G·R^(−1/2) (the Fishy paper, HITY 2022).",
);
/** Fishy: statistics from gradients of samples drawn at every section's boundary, exponents −1/k. */
export const fishyOptions = schema(
  "fishy",
  "Shampoo whose statistics come from local samples: at each section's boundary y is drawn from the Bregman family of its activation, and y − ŷ goes back to the section's start; L^(−1/2)·G·R^(−1/2) (equations (5) to (7) of the Fishy paper, HITY 2022). Where and how is sampled is decided by the program: --sections, --score, --draw, --sampled-share.",
);

export type ShampooOptions =
  | z.output<typeof shampooOptions>
  | z.output<typeof fimShampooOptions>
  | z.output<typeof fishyOptions>;

/** The p of M^(−1/p) for a block with `order` preconditioned dimensions. */
export function exponentOf(options: Pick<ShampooOptions, "name" | "exponent">, order: number): number {
  const { exponent } = options;
  if (typeof exponent === "number") return exponent;
  return exponent?.[String(order)] ?? (options.name === "shampoo" ? 2 * order : order);
}
