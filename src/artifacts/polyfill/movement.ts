/** Bodies of the gradients of operators that take parts of a tensor. */
import { intOf } from "../../onnx/attributes.js";
import { numbersOf } from "../../onnx/tensor.js";
import { at, type BodyContext, NoBody } from "./body.js";
import { gradientsOf, shapedValue, typeAt, zerosOf } from "./from-forward.js";

/** (shape, indices, dY) → ddata. */
export function gatherGrad(context: BodyContext): Promise<readonly string[]> {
  const { b, node } = context;
  const type = shapedValue(context, 0);
  const data = zerosOf(context, at(context, 0), type);
  return gradientsOf(context, {
    inputs: new Map([
      [data, type],
      [at(context, 1), typeAt(context, 1)],
    ]),
    emit: () => b.op("Gather", [data, at(context, 1)], { axis: intOf(node, "axis", 0) }),
    cotangent: at(context, 2),
    wrt: [data],
  });
}

/** (dY, shape, indices) → ddata. */
export function gatherElementsGrad(context: BodyContext): readonly string[] {
  const { b, node } = context;
  const data = zerosOf(context, at(context, 1), shapedValue(context, 1));
  const attributes = { axis: intOf(node, "axis", 0), reduction: "add" };
  return [b.op("ScatterElements", [data, at(context, 2), at(context, 0)], attributes)];
}

/** (shape, indices, dY) → ddata. */
export function gatherNdGrad(context: BodyContext): readonly string[] {
  const { b, node } = context;
  if (intOf(node, "batch_dims", 0) !== 0) throw new NoBody("gathers in batches");
  const data = zerosOf(context, at(context, 0), shapedValue(context, 0));
  return [b.op("ScatterND", [data, at(context, 1), at(context, 2)], { reduction: "add" })];
}

/** (dY, shape, starts, ends, axes, steps) → ddata. */
export function sliceGrad(context: BodyContext): Promise<readonly string[]> {
  const { b, node } = context;
  const type = shapedValue(context, 1);
  const data = zerosOf(context, at(context, 1), type);
  const bounds = [2, 3, 4, 5].flatMap((i) => {
    const name = node.input[i];
    const constant = name ? context.constantOf(name) : undefined;
    if (name && !constant) throw new NoBody("slices at computed bounds");
    return constant ? [b.i64(numbersOf(constant))] : [];
  });
  return gradientsOf(context, {
    inputs: new Map([[data, type]]),
    emit: () => b.op("Slice", [data, ...bounds]),
    cotangent: at(context, 0),
    wrt: [data],
  });
}
