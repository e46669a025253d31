/** Operators that opsets 19 to 26 gave attributes, modes or types: without these they mean what they meant at opset 18. */
import { attributesFrom, intOf, intsOf, stringOf } from "../attributes.js";
import { withFields } from "../codec.js";
import { DataType, type NodeProto } from "../proto.js";
import { dataTypeName, numbersOf } from "../tensor.js";
import { CannotConvert, type ConversionContext, type OpsetRule, rankOf } from "./rule.js";

function without(node: NodeProto, ...names: string[]): NodeProto {
  const attribute = node.attribute.filter(({ name }) => !names.includes(name ?? ""));
  return attribute.length === node.attribute.length ? node : withFields(node, { attribute });
}

/** `saturate` (19) and `round_mode` (24) concern 8-bit floats only. */
export const lowerCast: OpsetRule = {
  operators: ["Cast", "CastLike"],
  since: 19,
  convert: (node) => {
    const to = intOf(node, "to", DataType.FLOAT);
    if (to > DataType.BFLOAT16) throw new CannotConvert(`casts to ${dataTypeName(to)}, a type that opset 18 lacks`);
    return without(node, "saturate", "round_mode");
  },
};

export const lowerConstant: OpsetRule = {
  operators: ["Constant", "ConstantOfShape"],
  since: 19,
  convert: (node) => {
    const type = node.attribute.find(({ name }) => name === "value")?.t?.dataType ?? DataType.FLOAT;
    if (type > DataType.BFLOAT16)
      throw new CannotConvert(`has elements of ${dataTypeName(type)}, a type that opset 18 lacks`);
    return node;
  },
};

export const lowerAveragePool: OpsetRule = {
  operators: ["AveragePool"],
  since: 19,
  convert: (node) => {
    const dilations = intsOf(node, "dilations") ?? [];
    if (dilations.some((dilation) => dilation !== 1)) {
      throw new CannotConvert(`has dilations [${dilations.join(", ")}], which opset 18 lacks`);
    }
    return without(node, "dilations");
  },
};

const QUANTIZED: readonly number[] = [DataType.UINT8, DataType.INT8, DataType.INT32];

export const lowerQuantization: OpsetRule = {
  operators: ["QuantizeLinear", "DequantizeLinear"],
  since: 19,
  convert: (node, { constant }) => {
    if (intOf(node, "block_size", 0) !== 0) throw new CannotConvert("quantizes in blocks, which opset 18 cannot");
    const zeroPoint = node.input[2] ? constant(node.input[2])?.dataType : undefined;
    if (zeroPoint !== undefined && !QUANTIZED.includes(zeroPoint)) {
      throw new CannotConvert(`quantizes to ${dataTypeName(zeroPoint)}, a type that opset 18 lacks`);
    }
    const outputType = intOf(node, "output_dtype", 0);
    const usual: readonly number[] = node.opType === "DequantizeLinear" ? [0, DataType.FLOAT] : [0, DataType.UINT8];
    if (!usual.includes(outputType) && !(node.opType === "QuantizeLinear" && outputType === zeroPoint)) {
      throw new CannotConvert(`asks for outputs of ${dataTypeName(outputType)} by an attribute, which opset 18 lacks`);
    }
    const precision = intOf(node, "precision", 0);
    if (precision !== 0 && precision !== DataType.FLOAT) {
      throw new CannotConvert(`divides in ${dataTypeName(precision)}, which opset 18 cannot ask for`);
    }
    return without(node, "saturate", "block_size", "output_dtype", "precision");
  },
};

export const lowerResize: OpsetRule = {
  operators: ["Resize"],
  since: 19,
  convert: (node) => {
    if (stringOf(node, "coordinate_transformation_mode", "half_pixel") === "half_pixel_symmetric") {
      throw new CannotConvert("has the coordinate mode half_pixel_symmetric, which opset 18 lacks; use half_pixel");
    }
    return node;
  },
};

/** The same modes under other names; opset 16 has two spatial dimensions only. */
export const lowerGridSample: OpsetRule = {
  operators: ["GridSample"],
  since: 20,
  needsTypes: true,
  convert: (node, context) => {
    const rank = rankOf(context, node.input[0] as string);
    if (rank !== undefined && rank !== 4) {
      throw new CannotConvert(`samples a tensor of rank ${rank}; opset 18 samples images (rank 4) only`);
    }
    const mode = stringOf(node, "mode", "linear");
    const older = { linear: "bilinear", cubic: "bicubic" }[mode] ?? mode;
    const kept = node.attribute.filter(({ name }) => name !== "mode");
    return withFields(node, { attribute: [...kept, ...attributesFrom({ mode: older })] });
  },
};

/** The axis became an input, counted from the end by default. */
export const lowerDft: OpsetRule = {
  operators: ["DFT"],
  since: 20,
  needsTypes: true,
  convert: (node, context) => {
    const [x = "", length = "", axisInput = ""] = node.input;
    const constant = axisInput ? context.constant(axisInput) : undefined;
    if (axisInput && !constant) throw new CannotConvert("computes its axis in the graph, which opset 18 cannot");
    let axis = constant ? (numbersOf(constant)[0] as number) : -2;
    if (axis < 0) {
      const rank = rankOf(context, x);
      if (rank === undefined) throw new CannotConvert("counts its axis from the end of a tensor of unknown rank");
      axis += rank;
    }
    return withFields(node, {
      input: length ? [x, length] : [x],
      attribute: [...node.attribute, ...attributesFrom({ axis })],
    });
  },
};

/** Opset 19 added the mode `wrap`: the elements at i modulo the length of the axis. */
export const lowerPad: OpsetRule = {
  operators: ["Pad"],
  since: 19,
  needsTypes: true,
  convert: (node, context) => {
    if (stringOf(node, "mode", "constant") !== "wrap") return node;
    const { g } = context;
    const [x = "", padsInput = "", , axesInput = ""] = node.input;
    const pads = numbersOfConstant(context, padsInput, "its pads");
    const axes = axesInput ? numbersOfConstant(context, axesInput, "its axes") : undefined;
    const count = pads.length / 2;
    let value = x;
    for (let i = 0; i < count; i++) {
      const [before, after] = [pads[i] as number, pads[count + i] as number];
      if (before === 0 && after === 0) continue;
      value = wrapAxis(context, value, axes?.[i] ?? i, before, after);
    }
    g.node("Identity", [value], { outputs: node.output });
    return undefined;
  },
};

function wrapAxis({ g }: ConversionContext, x: string, axis: number, before: number, after: number): string {
  const length = g.gather(g.shape(x), g.i64(axis));
  const end = g.add(length, g.i64(after));
  const positions = g.op("Range", [g.i64(-before), end, g.i64(1)]);
  return g.gather(x, g.op("Mod", [positions, length]), axis);
}

function numbersOfConstant(context: ConversionContext, name: string, what: string): number[] {
  const tensor = context.constant(name);
  if (!tensor) throw new CannotConvert(`computes ${what} in the graph, which opset 18 cannot in the mode wrap`);
  return numbersOf(tensor);
}
