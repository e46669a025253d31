/** Every gradient rule, in one explicit list. A new rule is one import and one entry here. */
import type { NodeProto } from "../../onnx/proto.js";
import type { GradientRule } from "../rule.js";
import { add, div, mul, neg, sub } from "./arithmetic.js";

export const RULES: readonly GradientRule[] = [add, sub, mul, div, neg];

const byOperator = new Map(RULES.map((rule) => [key(rule.domain, rule.opType), rule]));

function key(domain: string | undefined, opType: string): string {
  return `${domain && domain !== "ai.onnx" ? domain : ""}:${opType}`;
}

/** The rule for a node's operator, or undefined when it has no gradient. */
export function ruleFor(node: NodeProto): GradientRule | undefined {
  return byOperator.get(key(node.domain, node.opType ?? ""));
}
