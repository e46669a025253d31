/** Every gradient rule, in one explicit list. A new rule is one import and one entry here. */

import type { NodeProto } from "../../onnx/proto.js";
import { isDefaultDomain } from "../../onnx/versions.js";
import type { GradientRule } from "../rule.js";
import { gelu, mish, sigmoid, softplus, softsign, swish, tanh } from "./activations.js";
import { add, div, mod, mul, neg, sub } from "./arithmetic.js";
import { cumSum, depthToSpace, oneHot, reverseSequence, spaceToDepth, tile, topK, trilu } from "./arrangement.js";
import { batchNormalization } from "./batch-normalization.js";
import { col2Im } from "./col2im.js";
import { compress } from "./compress.js";
import { flat } from "./constant.js";
import { biasGelu, fastGelu, fusedMatMul, inverse, microsoftGelu, quickGelu } from "./contrib.js";
import { conv, convTranspose } from "./convolution.js";
import { dropout } from "./dropout.js";
import { einsum } from "./einsum.js";
import { abs, erf, exp, log, pow, reciprocal, sqrt } from "./elementary.js";
import { gather, gatherElements, gatherND } from "./gather.js";
import { gridSample } from "./grid-sample.js";
import { negativeLogLikelihoodLoss, softmaxCrossEntropyLoss } from "./losses.js";
import { gemm, matMul } from "./matmul.js";
import { cast, castLike, expand, flatten, identity, reshape, squeeze, transpose, unsqueeze } from "./movement.js";
import {
  groupNormalization,
  instanceNormalization,
  layerNormalization,
  lpNormalization,
  lrn,
  meanVarianceNormalization,
  rmsNormalization,
  simplifiedLayerNormalization,
} from "./normalization.js";
import { pad } from "./pad.js";
import { concat, split } from "./partition.js";
import { averagePool, globalAveragePool, globalMaxPool, lpPool, maxPool } from "./pooling.js";
import {
  celu,
  elu,
  hardSigmoid,
  hardSwish,
  leakyRelu,
  pRelu,
  relu,
  selu,
  shrink,
  thresholdedRelu,
} from "./rectifiers.js";
import {
  reduceL1,
  reduceL2,
  reduceLogSum,
  reduceLogSumExp,
  reduceMax,
  reduceMean,
  reduceMin,
  reduceProd,
  reduceSum,
  reduceSumSquare,
} from "./reductions.js";
import { resize } from "./resize.js";
import { scatter, scatterElements, scatterND } from "./scatter.js";
import { clip, max, mean, min, sum, where } from "./selection.js";
import { skipLayerNormalization, skipSimplifiedLayerNormalization } from "./skip-normalization.js";
import { slice } from "./slice.js";
import { logSoftmax, softmax } from "./softmax.js";
import { acos, acosh, asin, asinh, atan, atanh, cos, cosh, sin, sinh, tan } from "./trigonometry.js";

export const RULES: readonly GradientRule[] = [
  // Linear algebra
  ...[gemm, matMul, einsum, conv, convTranspose],
  // Pools
  ...[maxPool, averagePool, lpPool, globalMaxPool, globalAveragePool],
  // Elementwise
  ...[add, sub, mul, div, mod, neg, abs, pow, exp, log, sqrt, reciprocal, erf],
  ...[sin, cos, tan, asin, acos, atan, sinh, cosh, asinh, acosh, atanh],
  ...flat,
  // Activations
  ...[relu, leakyRelu, pRelu, elu, selu, celu, thresholdedRelu, shrink, hardSigmoid, hardSwish],
  ...[sigmoid, tanh, softplus, softsign, gelu, swish, mish, softmax, logSoftmax],
  // Choosing
  ...[where, clip, max, min, sum, mean],
  // Movement
  ...[identity, cast, castLike, reshape, flatten, transpose, squeeze, unsqueeze, expand, concat, split, slice],
  ...[pad, tile, trilu, resize, depthToSpace, spaceToDepth, reverseSequence, col2Im],
  // Indexing
  ...[gather, gatherElements, gatherND, compress, gridSample, scatter, scatterElements, scatterND, topK, oneHot],
  // Normalisation
  ...[batchNormalization, layerNormalization, rmsNormalization, simplifiedLayerNormalization],
  ...[instanceNormalization, groupNormalization, meanVarianceNormalization, lpNormalization, lrn],
  // Reductions
  ...[reduceSum, reduceMean, reduceMax, reduceMin, reduceProd, reduceL1, reduceL2],
  ...[reduceSumSquare, reduceLogSum, reduceLogSumExp, cumSum],
  // ONNX Runtime's own domain
  ...[
    microsoftGelu,
    quickGelu,
    biasGelu,
    fastGelu,
    fusedMatMul,
    skipLayerNormalization,
    skipSimplifiedLayerNormalization,
    inverse,
  ],
  // Regularisation and losses
  ...[dropout, softmaxCrossEntropyLoss, negativeLogLikelihoodLoss],
];

const byOperator = new Map(RULES.map((rule) => [key(rule.domain, rule.opType), rule]));

function key(domain: string | undefined, opType: string): string {
  return `${isDefaultDomain(domain) ? "" : domain}:${opType}`;
}

/** The rule for a node's operator, or undefined when it has no gradient. */
export function ruleFor(node: NodeProto): GradientRule | undefined {
  return byOperator.get(key(node.domain, node.opType ?? ""));
}
