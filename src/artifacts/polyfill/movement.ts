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
export function gatherNdGrad(context: BodyContext): Promise<readonly string[]> {
  const { b, node } = context;
  const type = shapedValue(context, 0);
  const data = zerosOf(context, at(context, 0), type);
  const attributes = { batch_dims: intOf(node, "batch_dims", 0) };
  return gradientsOf(context, {
    inputs: new Map([
      [data, type],
      [at(context, 1), typeAt(context, 1)],
    ]),
    emit: () => b.op("GatherND", [data, at(context, 1)], attributes),
    cotangent: at(context, 2),
    wrt: [data],
  });
}

/** (dY, shape, starts, ends, axes, steps) → ddata. */
export function sliceGrad(context: BodyContext): Promise<readonly string[]> {
  const { b, node } = context;
  const type = shapedValue(context, 1);
  const data = zerosOf(context, at(context, 1), type);
  const inputs = new Map([[data, type]]);
  const bounds = [2, 3, 4, 5].flatMap((i) => {
    const name = node.input[i];
    if (!name) return [];
    const constant = context.constantOf(name);
    if (constant) return [b.i64(numbersOf(constant))];
    if (i > 3) throw new NoBody("slices along computed axes, or with computed steps");
    inputs.set(at(context, i), typeAt(context, i));
    return [at(context, i)];
  });
  return gradientsOf(context, {
    inputs,
    emit: () => b.op("Slice", [data, ...bounds]),
    cotangent: at(context, 0),
    wrt: [data],
  });
}
