/** Axes and split sizes: attributes that became inputs at opset 13 (Squeeze, Unsqueeze, ReduceSum, Split) and 18 (the other Reduce*). */
import { attributesFrom, hasAttribute, intsOf } from "../attributes.js";
import { withFields } from "../codec.js";
import type { NodeProto } from "../proto.js";
import type { ConversionContext, OpsetRule } from "./rule.js";

/** Moves the ints attribute `name` to the second input. */
function attributeToInput(name: string) {
  return (node: NodeProto, { g }: ConversionContext): NodeProto => {
    const values = intsOf(node, name);
    if (values === undefined) return node;
    return withFields(node, {
      input: [node.input[0] as string, g.i64(values)],
      attribute: node.attribute.filter((attribute) => attribute.name !== name),
    });
  };
}

export const axesToInput13: OpsetRule = {
  operators: ["Squeeze", "Unsqueeze", "ReduceSum"],
  since: 13,
  convert: attributeToInput("axes"),
};

export const axesToInput18: OpsetRule = {
  operators: [
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSumSquare",
  ],
  since: 18,
  convert: attributeToInput("axes"),
};

export const splitToInput: OpsetRule = { operators: ["Split"], since: 13, convert: attributeToInput("split") };

/** From opset 18 on an even split says into how many parts. */
export const splitOutputs: OpsetRule = {
  operators: ["Split"],
  since: 18,
  convert: (node) => {
    if (node.input[1] || hasAttribute(node, "num_outputs")) return node;
    return withFields(node, {
      attribute: [...node.attribute, ...attributesFrom({ num_outputs: node.output.length })],
    });
  },
};
