/**
 * Sequences of tensors: exporters write `split` and lists as SplitToSequence, SequenceInsert, SequenceAt and
 * ConcatFromSequence. Where the elements are known one by one, they are read without the sequence.
 */
import { intOf } from "../../onnx/attributes.js";
import { numbersOf } from "../../onnx/tensor.js";
import type { Lowering, LoweringContext } from "./lowering.js";
import { StaticValues } from "./static-value.js";
import { MAX_UNROLLED_STEPS } from "./unrolling.js";

/** The elements of a sequence; undefined where they are decided at run time. */
function elementsOf(name: string, context: LoweringContext): string[] | undefined {
  // Every append is a node of its own: walked without recursion, last first.
  const edits: ((elements: string[]) => boolean)[] = [];
  const values = new StaticValues(context);
  for (let sequence = name; ; ) {
    const node = context.producer(sequence);
    const [first = "", second = "", third = ""] = node?.input ?? [];
    const apply = (elements: string[]) => (edits.reverse().every((edit) => edit(elements)) ? elements : undefined);
    switch (node?.opType) {
      case "SequenceEmpty":
        return apply([]);
      case "SequenceConstruct":
        return apply([...node.input]);
      case "Identity":
        break;
      case "SequenceInsert":
        edits.push((elements) => {
          const position = third ? values.scalar(third) : elements.length;
          if (position === undefined) return false;
          elements.splice(position, 0, second);
          return true;
        });
        break;
      case "SequenceErase":
        edits.push((elements) => {
          const position = second ? values.scalar(second) : elements.length - 1;
          if (position === undefined) return false;
          elements.splice(position, 1);
          return true;
        });
        break;
      default:
        return undefined;
    }
    sequence = first;
  }
}

const UNKNOWN =
  "the elements of its sequence are decided at run time only. Export the model with lists of a fixed number of tensors";

export const splitToSequence: Lowering = {
  opType: "SplitToSequence",
  lower(node, context) {
    const [x, split] = node.input as [string, string?];
    const output = node.output[0] as string;
    if (!context.isOnGradientPath(output)) return false;
    const { b, types } = context;
    const axis = intOf(node, "axis", 0);
    const shape = types.get(x)?.shape;
    const dim = shape?.[axis < 0 ? axis + shape.length : axis];
    const constant = split ? context.constantOf(split) : undefined;
    if (typeof dim !== "number" || (split && !constant)) {
      return context.refuse(
        `the axis ${axis} of '${x}', which it splits, or its parts are known at run time only. Export the model with a fixed size there`,
      );
    }
    const given = constant && numbersOf(constant);
    const isScalar = constant?.dims.length === 0;
    const size = given && isScalar ? (given[0] as number) : 1;
    const sizes =
      given && !isScalar
        ? given
        : Array.from({ length: Math.ceil(dim / size) }, (_, i) => Math.min(size, dim - i * size));
    if (sizes.length === 0 || sizes.length > MAX_UNROLLED_STEPS)
      return context.refuse(`it splits into ${sizes.length} parts`);
    const parts = b.node("Split", [x, b.i64(sizes)], { outputs: sizes.length, attributes: { axis } });
    // Without `split`, keepdims says whether the axis stays.
    const drops = !split && intOf(node, "keepdims", 1) === 0;
    b.node("SequenceConstruct", drops ? parts.map((part) => b.squeeze(part, [axis])) : parts, { outputs: [output] });
    return true;
  },
};

export const sequenceAt: Lowering = {
  opType: "SequenceAt",
  lower(node, context) {
    const [sequence, position] = node.input as [string, string];
    const output = node.output[0] as string;
    if (!context.isOnGradientPath(output)) return false;
    const elements = elementsOf(sequence, context);
    const at = new StaticValues(context).scalar(position);
    const element = at === undefined ? undefined : elements?.at(at);
    if (!element) return context.refuse(elements ? `its position '${position}' is known at run time only` : UNKNOWN);
    context.b.node("Identity", [element], { outputs: [output] });
    return true;
  },
};

export const concatFromSequence: Lowering = {
  opType: "ConcatFromSequence",
  lower(node, context) {
    const output = node.output[0] as string;
    if (!context.isOnGradientPath(output)) return false;
    const elements = elementsOf(node.input[0] as string, context);
    if (!elements || elements.length === 0) return context.refuse(UNKNOWN);
    const { b } = context;
    const axis = intOf(node, "axis", 0);
    const stacks = intOf(node, "new_axis", 0) !== 0;
    const parts = stacks ? elements.map((element) => b.unsqueeze(element, [axis])) : elements;
    b.node("Concat", parts, { outputs: [output], attributes: { axis } });
    return true;
  },
};
