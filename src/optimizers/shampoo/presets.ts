/**
 * Published settings, every value that differs from fishy's own defaults. An option given beside `preset` wins.
 *
 * google: `distributed_shampoo` of google-research/scalable_shampoo (2022, also PyPI's optax-shampoo 0.0.6), whose
 * learning rate and block size the caller must choose (its documentation says 128). `start_preconditioning_step` counts
 * from 0, `startStep` from 1. Not copied: the decoupled weight decay of that version, which carries the learning rate
 * twice; and the second momentum buffer for the graft, which matters only at the start step (Google's later
 * `tearfree` keeps one, as fishy does).
 *
 * meta: `DistributedShampoo` of facebookresearch/optimizers (2026). Its eigenvalue shift for indefinite statistics is
 * replaced by retries with a larger ridge.
 *
 * paper: L ← β₂L + (1 − β₂)ĜĜᵀ, R likewise, W ← W − lr·L^(−1/2)·G·R^(−1/2), equations (5)–(7) of the Fishy paper with
 * one block for each matrix, every root at every step and nothing around it; the exponents are −1/4 for `shampoo`.
 */

import type { z } from "zod";
import type { shampooOptions } from "./options.js";

type Preset = Omit<Partial<z.input<typeof shampooOptions>>, "name" | "preset">;

export const PRESETS = {
  google: {
    momentum: 0.9,
    momentumKind: "heavy-ball",
    momentumOrder: "after",
    momentumBiasCorrection: false,
    nesterov: true,
    beta2: 0.999,
    statisticsInit: 1e-6,
    statisticsBiasCorrection: false,
    epsilon: 1e-6,
    epsilonKind: "relative",
    blockSize: 128,
    blocks: "fixed",
    mergeDims: "left",
    mergeLimit: 4096,
    mergeRank: 1,
    skipRankBelow: 1,
    skipDimAbove: 4096,
    sides: "all",
    statisticsInterval: 1,
    rootInterval: 1,
    rootSchedule: "from-first-step",
    startStep: 6,
    graft: "sgd",
    graftBeta2: 0.999,
    graftEpsilon: 1e-10,
    graftNorm: "tensor",
    weightDecay: 0,
    weightDecayKind: "coupled",
    root: { solver: "newton", threshold: 0.1, retries: 5 },
  },
  meta: {
    learningRate: 1e-2,
    momentum: 0.9,
    momentumKind: "ema",
    momentumOrder: "before",
    momentumBiasCorrection: true,
    nesterov: false,
    beta2: 1,
    statisticsInit: 0,
    statisticsBiasCorrection: true,
    epsilon: 1e-12,
    epsilonKind: "absolute",
    blockSize: 1024,
    blocks: "fixed",
    mergeDims: "right",
    mergeLimit: 1024,
    mergeRank: 1,
    skipRankBelow: 1,
    skipDimAbove: Number.POSITIVE_INFINITY,
    sides: "all",
    statisticsInterval: 1,
    rootInterval: 1,
    rootSchedule: "multiples",
    startStep: 1,
    graft: "none",
    graftBeta2: 1,
    graftEpsilon: 1e-10,
    graftNorm: "block",
    weightDecay: 0,
    weightDecayKind: "decoupled",
    root: { threshold: 0.1, retries: 8 },
  },
  paper: {
    momentum: 0,
    statisticsInit: 0,
    epsilon: 1e-6,
    epsilonKind: "relative",
    blockSize: 16384,
    mergeDims: "right",
    sides: "all",
    statisticsInterval: 1,
    rootInterval: 1,
    startStep: 1,
    graft: "none",
    weightDecay: 0,
  },
} as const satisfies Record<string, Preset>;

export type PresetName = keyof typeof PRESETS;

/** Options with those of their preset filled in; the schema's defaults fill the rest. */
export function withPreset<T extends object>(options: T & { preset?: unknown; root?: unknown }): T {
  const { preset } = options;
  if (typeof preset !== "string" || !Object.hasOwn(PRESETS, preset)) return options;
  const base: Preset = PRESETS[preset as PresetName];
  const root = typeof options.root === "object" ? { ...base.root, ...options.root } : (options.root ?? base.root);
  return { ...base, ...options, ...(root !== undefined && { root }) };
}
