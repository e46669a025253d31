/** Convolutions that WebGPU takes wrong or not at all, as others that it takes right. */
import { intOf, intsOf, stringOf } from "../onnx/attributes.js";
import type { GraphBuilder, ValueType } from "../onnx/builder.js";
import type { NodeProto } from "../onnx/proto.js";
import type { KernelScope } from "./kernels.js";

/** What stands for a Conv, or undefined. @param type of its input. */
export function replacedConvolution(b: GraphBuilder, node: NodeProto, type: ValueType, scope: KernelScope) {
  return intOf(node, "group", 1) === 1 ? padded(b, node, type, scope) : byGroup(b, node, type, scope);
}

/** What stands for a ConvTranspose, or undefined. @param type of its input. */
export function replacedTransposed(b: GraphBuilder, node: NodeProto, type: ValueType, scope: KernelScope) {
  return (type.shape?.length ?? 0) > 4 ? flattened(b, node, type, scope) : byGroup(b, node, type, scope);
}

/** A grouped convolution, transposed or not, as one for each group. */
function byGroup(b: GraphBuilder, node: NodeProto, type: ValueType, { types }: KernelScope) {
  const groups = intOf(node, "group", 1);
  if (groups === 1) return undefined;
  const [x, weight, bias] = node.input as [string, string, string?];
  const { opType = "" } = node;
  const inputs = type.shape?.[1];
  const [first, second] = types.get(weight)?.shape ?? [];
  if (typeof inputs !== "number" || typeof first !== "number" || typeof second !== "number") return undefined;
  const outputs = opType === "Conv" ? first : second * groups;
  const part = (value: string, axis: number, length: number, group: number) => {
    const own = length / groups;
    return b.slice(value, [group * own], [(group + 1) * own], [axis]);
  };
  const attribute = node.attribute.filter(({ name }) => name !== "group");
  const results = Array.from({ length: groups }, (_, group) => {
    const operands = [part(x, 1, inputs, group), part(weight, 0, first, group)];
    if (bias) operands.push(part(bias, 0, outputs, group));
    const result = b.op(opType, operands);
    (b.graph.node.at(-1) as NodeProto).attribute = attribute;
    return result;
  });
  return b.concat(results, 1);
}

/** A convolution with as many channels of zeros beside the input's as make a multiple of 4. */
function padded(b: GraphBuilder, node: NodeProto, type: ValueType, { types }: KernelScope) {
  const [x, weight, ...bias] = node.input as [string, string, string?];
  const rank = type.shape?.length;
  const channels = types.get(weight)?.shape?.[1];
  if (rank === undefined || typeof channels !== "number") return undefined;
  const missing = 4 - (channels % 4);
  const pads = Array.from({ length: 2 * rank }, (_, i) => (i === rank + 1 ? missing : 0));
  const pad = (value: string) => b.op("Pad", [value, b.i64(pads)]);
  const result = b.op("Conv", [pad(x), pad(weight), ...(bias as string[])]);
  (b.graph.node.at(-1) as NodeProto).attribute = node.attribute;
  return result;
}

/** A transposed convolution in three dimensions whose kernel lies along the first of them, in two. */
function flattened(b: GraphBuilder, node: NodeProto, type: ValueType, { types }: KernelScope) {
  const [x, weight, ...bias] = node.input as [string, string, string?];
  const [n, inputs, depth, height, width] = (type.shape ?? []) as number[];
  const kernel = types.get(weight)?.shape as number[] | undefined;
  const known = [n, inputs, depth, height, width].every((dim) => typeof dim === "number");
  if (type.shape?.length !== 5 || !known || !kernel) return undefined;
  const along = (name: string, i: number, rest: number) => {
    const values = intsOf(node, name);
    if (!values) return rest;
    const others = values.filter((_, axis) => axis % 3 !== 0);
    return others.every((value) => value === rest) ? (values[i] as number) : undefined;
  };
  const [stride, dilation, extra] = [along("strides", 0, 1), along("dilations", 0, 1), along("output_padding", 0, 0)];
  const [before, after] = [along("pads", 0, 0), along("pads", 3, 0)];
  const plain = kernel[3] === 1 && kernel[4] === 1 && stringOf(node, "auto_pad", "NOTSET") === "NOTSET";
  if (!plain || intsOf(node, "output_shape")) return undefined;
  if (stride === undefined || extra === undefined || before === undefined || after === undefined) return undefined;
  if (dilation === undefined) return undefined;
  const [, perGroup, size] = kernel as [number, number, number];
  const group = intOf(node, "group", 1);
  const flatWeight = b.reshape(weight, [inputs as number, perGroup, size, 1]);
  const flat = b.op(
    "ConvTranspose",
    [
      b.reshape(x, [n, inputs, depth, (height as number) * (width as number)] as number[]),
      flatWeight,
      ...(bias as string[]),
    ],
    {
      group,
      kernel_shape: [size, 1],
      strides: [stride, 1],
      dilations: [dilation, 1],
      pads: [before, 0, after, 0],
      output_padding: [extra, 0],
    },
  );
  return b.reshape(flat, [n as number, perGroup * group, -1, height as number, width as number]);
}
