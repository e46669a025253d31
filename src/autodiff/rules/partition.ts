/** Concat and Split: putting tensors together along an axis and taking them apart. */
import { intOf } from "../../onnx/attributes.js";
import type { GradientRule } from "../rule.js";
import { dimension, staticShape, zerosLike } from "../shapes.js";

export const concat: GradientRule = {
  opType: "Concat",
  gradient: (c) => {
    const { b } = c;
    const axis = c.axis(intOf(c.node, "axis", 0), c.output());
    const inputs = c.node.input;
    if (inputs.length === 1) return { 0: () => c.cotangent() };
    const sizes = staticShape(inputs.map((name) => c.shape(name)[axis] ?? null));
    // One Split serves all inputs; when few of several want their part, each is sliced out alone.
    const wanted = inputs.filter((_, i) => c.needs(i)).length;
    let parts: string[] | undefined;
    const split = () => {
      parts ??= b.node(
        "Split",
        [
          c.cotangent(),
          sizes
            ? b.i64(sizes)
            : b.concat(
                inputs.map((x) => dimension(c, x, axis)),
                0,
              ),
        ],
        {
          outputs: inputs.length,
          attributes: { axis },
        },
      );
      return parts;
    };
    const sliced = (i: number, known: readonly number[]) => {
      const start = known.slice(0, i).reduce((sum, size) => sum + size, 0);
      return b.slice(c.cotangent(), [start], [start + (known[i] as number)], [axis]);
    };
    return Object.fromEntries(
      inputs.map((_, i) => [i, () => (sizes && wanted < 2 ? sliced(i, sizes) : (split()[i] as string))]),
    );
  },
};

export const split: GradientRule = {
  opType: "Split",
  gradient: (c) => ({
    0: () =>
      c.b.concat(
        c.cotangents.map((dy, i) => dy ?? zerosLike(c, c.output(i))),
        c.axis(intOf(c.node, "axis", 0), c.input(0)),
      ),
  }),
};
