/** Clip, Pad, Slice and TopK: attributes that became inputs at opsets 10 and 11. */
import { floatOf, hasAttribute, intOf, intsOf, stringOf } from "../attributes.js";
import { withFields } from "../codec.js";
import type { NodeProto } from "../proto.js";
import { type ConversionContext, type OpsetRule, scalarLike } from "./rule.js";

function without(node: NodeProto, ...names: string[]): NodeProto["attribute"] {
  return node.attribute.filter(({ name }) => !names.includes(name ?? ""));
}

export const clipBounds: OpsetRule = {
  operators: ["Clip"],
  since: 11,
  needsTypes: true,
  convert: (node, context) => {
    const x = node.input[0] as string;
    const bound = (name: string) => (hasAttribute(node, name) ? scalarLike(context, x, floatOf(node, name, 0)) : "");
    return withFields(node, { input: [x, bound("min"), bound("max")], attribute: without(node, "min", "max") });
  },
};

export const padAmounts: OpsetRule = {
  operators: ["Pad"],
  since: 11,
  needsTypes: true,
  convert: (node, context) => {
    const x = node.input[0] as string;
    const value = floatOf(node, "value", 0);
    const input = [x, context.g.i64(intsOf(node, "pads") ?? [])];
    if (value !== 0 && stringOf(node, "mode", "constant") === "constant") input.push(scalarLike(context, x, value));
    return withFields(node, { input, attribute: without(node, "pads", "value") });
  },
};

export const sliceBounds: OpsetRule = {
  operators: ["Slice"],
  since: 10,
  convert: (node, { g }: ConversionContext) => {
    const input = [node.input[0] as string, g.i64(intsOf(node, "starts") ?? []), g.i64(intsOf(node, "ends") ?? [])];
    const axes = intsOf(node, "axes");
    if (axes) input.push(g.i64(axes));
    return withFields(node, { input, attribute: without(node, "starts", "ends", "axes") });
  },
};

export const topKCount: OpsetRule = {
  operators: ["TopK"],
  since: 10,
  convert: (node, { g }) =>
    withFields(node, {
      input: [node.input[0] as string, g.i64([intOf(node, "k", 1)])],
      attribute: without(node, "k"),
    }),
};
