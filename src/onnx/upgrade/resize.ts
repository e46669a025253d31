/** Upsample and the early Resize: one coordinate rule, no `roi`, no `sizes`. */
import { attributesFrom, stringOf } from "../attributes.js";
import { withFields } from "../codec.js";
import { dimsOf, elementCount, numbersOf } from "../tensor.js";
import { CannotConvert, type ConversionContext, type OpsetRule } from "./rule.js";

/** Upsample only enlarges; it gave way to Resize. */
export const upsample: OpsetRule = {
  operators: ["Upsample"],
  since: 11,
  convert: (node, { g }) => {
    g.node("Resize", [node.input[0] as string, "", node.input[1] as string], {
      outputs: node.output,
      attributes: {
        mode: stringOf(node, "mode", "nearest"),
        coordinate_transformation_mode: "asymmetric",
        nearest_mode: "floor",
      },
    });
    return undefined;
  },
};

/**
 * Opset 10 leaves the coordinates open; ONNX Runtime takes x / scale, and its nearest pixel is below when it enlarges,
 * above when it shrinks (upsamplebase.h, ResizeNearestMode::SIMPLE).
 */
export const resize10: OpsetRule = {
  operators: ["Resize"],
  since: 11,
  convert: (node, context) => {
    const { g } = context;
    const [x, scales] = node.input as [string, string];
    const mode = stringOf(node, "mode", "nearest");
    const resize = (from: string, by: string, nearest: "floor" | "ceil", outputs: readonly string[] | number) =>
      g.node("Resize", [from, "", by], {
        outputs,
        attributes: { mode, coordinate_transformation_mode: "asymmetric", nearest_mode: nearest },
      })[0] as string;
    if (mode !== "nearest") {
      resize(x, scales, "floor", node.output);
      return undefined;
    }
    const constant = context.constant(scales);
    if (!constant) {
      throw new CannotConvert(
        "computes its scales in the graph, so that it is open which pixel is the nearest; export with opset 11 or newer, or fold the constants first",
      );
    }
    const values = numbersOf(constant);
    if (values.every((scale) => scale >= 1)) resize(x, scales, "floor", node.output);
    else if (values.every((scale) => scale <= 1)) resize(x, scales, "ceil", node.output);
    else {
      const shrunk = resize(x, g.f32(values.map((scale) => Math.min(scale, 1))), "ceil", 1);
      resize(shrunk, g.f32(values.map((scale) => Math.max(scale, 1))), "floor", node.output);
    }
    return undefined;
  },
};

/** From opset 13 on an unused roi or scales is left out, and the mode `tf_half_pixel_for_nn` is gone. */
export const resize13: OpsetRule = {
  operators: ["Resize"],
  since: 13,
  convert: (node, context) => {
    const [x = "", roi = "", scales = "", ...rest] = node.input;
    const input = [x, unlessEmpty(context, roi), unlessEmpty(context, scales), ...rest];
    if (stringOf(node, "coordinate_transformation_mode", "half_pixel") !== "tf_half_pixel_for_nn") {
      return withFields(node, { input });
    }
    // x + ½ rounded by the left rule is x rounded by the right one.
    const nearest = { floor: "round_prefer_ceil", round_prefer_floor: "ceil" }[
      stringOf(node, "nearest_mode", "round_prefer_floor")
    ];
    if (stringOf(node, "mode", "nearest") !== "nearest" || nearest === undefined) {
      throw new CannotConvert("has the coordinate mode tf_half_pixel_for_nn, which opset 13 removed");
    }
    const kept = node.attribute.filter(
      ({ name }) => name !== "coordinate_transformation_mode" && name !== "nearest_mode",
    );
    return withFields(node, {
      input,
      attribute: [...kept, ...attributesFrom({ coordinate_transformation_mode: "half_pixel", nearest_mode: nearest })],
    });
  },
};

function unlessEmpty(context: ConversionContext, name: string): string {
  const tensor = name ? context.constant(name) : undefined;
  return tensor && elementCount(dimsOf(tensor)) === 0 ? "" : name;
}
