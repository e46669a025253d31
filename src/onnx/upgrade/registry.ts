/** All rules of the opset conversion. An operator without one means the same in every opset that it is in. */
import { axesToInput13, axesToInput18, splitOutputs, splitToInput } from "./axes.js";
import { clipBounds, padAmounts, sliceBounds, topKCount } from "./bounds.js";
import { lowerGelu, lowerSwish } from "./lower-activations.js";
import { lowerAttention, lowerRotaryEmbedding } from "./lower-attention.js";
import {
  lowerAveragePool,
  lowerCast,
  lowerConstant,
  lowerDft,
  lowerGridSample,
  lowerPad,
  lowerQuantization,
  lowerResize,
} from "./lower-attributes.js";
import { lowerGroupNormalization, lowerRmsNormalization } from "./lower-normalization.js";
import { roiAlign, scatter } from "./renamed.js";
import { resize10, resize13, upsample } from "./resize.js";
import type { OpsetRule } from "./rule.js";
import { softmaxAxis } from "./softmax.js";
import { batchNormalizationMode, dropoutRatio } from "./training.js";

/** From opsets before the program's. */
export const UPGRADES: readonly OpsetRule[] = [
  axesToInput13,
  axesToInput18,
  batchNormalizationMode,
  clipBounds,
  dropoutRatio,
  padAmounts,
  resize10,
  resize13,
  roiAlign,
  scatter,
  sliceBounds,
  softmaxAxis,
  splitOutputs,
  splitToInput,
  topKCount,
  upsample,
];

/** From opsets after the program's. */
export const LOWERINGS: readonly OpsetRule[] = [
  lowerAttention,
  lowerAveragePool,
  lowerCast,
  lowerConstant,
  lowerDft,
  lowerGelu,
  lowerGridSample,
  lowerGroupNormalization,
  lowerPad,
  lowerQuantization,
  lowerResize,
  lowerRmsNormalization,
  lowerRotaryEmbedding,
  lowerSwish,
];

/** Operators of the default domain that opsets after the program's added, and the opset that did. */
export const NEWER_OPERATORS: Readonly<Record<string, number>> = {
  AffineGrid: 20,
  Attention: 23,
  BitCast: 26,
  CumProd: 26,
  DeformConv: 19,
  Gelu: 20,
  ImageDecoder: 20,
  RMSNormalization: 23,
  RegexFullMatch: 20,
  RotaryEmbedding: 23,
  StringConcat: 20,
  StringSplit: 20,
  Swish: 24,
  TensorScatter: 24,
};
