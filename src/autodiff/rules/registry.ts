/** Every gradient rule, in one explicit list. A new rule is one import and one entry here. */

import type { NodeProto } from "../../onnx/proto.js";
import { isDefaultDomain } from "../../onnx/versions.js";
import type { GradientRule } from "../rule.js";
import { gelu, mish, sigmoid, softplus, softsign, swish, tanh } from "./activations.js";
import { add, div, mul, neg, sub } from "./arithmetic.js";
import { batchNormalization } from "./batch-normalization.js";
import { conv, convTranspose } from "./convolution.js";
import { dropout } from "./dropout.js";
import { abs, erf, exp, log, pow, reciprocal, sqrt } from "./elementary.js";
import { gather, gatherElements, gatherND } from "./gather.js";
import { negativeLogLikelihoodLoss, softmaxCrossEntropyLoss } from "./losses.js";
import { gemm, matMul } from "./matmul.js";
import { cast, castLike, expand, flatten, identity, reshape, squeeze, transpose, unsqueeze } from "./movement.js";
import {
  groupNormalization,
  instanceNormalization,
  layerNormalization,
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
import { reduceMean, reduceSum } from "./reductions.js";
import { scatter, scatterElements, scatterND } from "./scatter.js";
import { clip, where } from "./selection.js";
import { slice } from "./slice.js";
import { logSoftmax, softmax } from "./softmax.js";

export const RULES: readonly GradientRule[] = [
  // Linear algebra
  ...[gemm, matMul, conv, convTranspose],
  // Pools
  ...[maxPool, averagePool, lpPool, globalMaxPool, globalAveragePool],
  // Elementwise
  ...[add, sub, mul, div, neg, abs, pow, exp, log, sqrt, reciprocal, erf],
  // Activations
  ...[relu, leakyRelu, pRelu, elu, selu, celu, thresholdedRelu, shrink, hardSigmoid, hardSwish],
  ...[sigmoid, tanh, softplus, softsign, gelu, swish, mish, softmax, logSoftmax],
  // Choosing
  ...[where, clip],
  // Movement
  ...[identity, cast, castLike, reshape, flatten, transpose, squeeze, unsqueeze, expand, concat, split, slice],
  pad,
  // Indexing
  ...[gather, gatherElements, gatherND, scatter, scatterElements, scatterND],
  // Normalisation
  ...[batchNormalization, layerNormalization, rmsNormalization, simplifiedLayerNormalization],
  ...[instanceNormalization, groupNormalization, meanVarianceNormalization, lrn],
  // Reductions
  ...[reduceSum, reduceMean],
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
