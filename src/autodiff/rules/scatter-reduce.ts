/** ScatterElements with a product, maximum or minimum: y[i] = x[i] with every update u whose index is i. */
import { type GradientContext, once } from "../rule.js";

interface Scatter {
  /** Values of the updates' shape out of values of the data's shape, at the indices. */
  gather(value: string): string;
  /** `data`, with `updates` combined at the indices. */
  scatter(data: string, updates: string, reduction: "add" | "mul"): string;
}

function along(c: GradientContext, axis: number): Scatter {
  const indices = c.input(1);
  return {
    gather: (value) => c.b.op("GatherElements", [value, indices], { axis }),
    scatter: (data, updates, reduction) => c.b.op("ScatterElements", [data, indices, updates], { axis, reduction }),
  };
}

/** The product of the others: exact where a factor is zero, and zero where two are. */
export function scatterProduct(c: GradientContext, axis: number): Record<number, () => string> {
  const { b } = c;
  const [x, u] = [c.input(0), c.input(2)];
  const { gather, scatter } = along(c, axis);
  const zero = c.scalar(0, x);
  const one = c.scalar(1, x);
  const withoutZeros = (value: string) => {
    const isZero = b.equal(value, zero);
    return { value: b.where(isZero, one, value), zeros: b.cast(isZero, c.elemType(x)) };
  };
  const factors = once(() => {
    const [data, updates] = [withoutZeros(x), withoutZeros(u)];
    const product = scatter(data.value, updates.value, "mul");
    const zeros = scatter(data.zeros, updates.zeros, "add");
    return { data, updates, zeros, scaled: b.mul(c.cotangent(), product) };
  });
  const others = (scaled: string, zeros: string, own: { value: string; zeros: string }) =>
    b.where(b.equal(zeros, own.zeros), b.div(scaled, own.value), zero);
  return {
    0: () => others(factors().scaled, factors().zeros, factors().data),
    2: () => others(gather(factors().scaled), gather(factors().zeros), factors().updates),
  };
}

/** Ties share evenly, as torch.Tensor.scatter_reduce with amax and amin. */
export function scatterExtremum(c: GradientContext, axis: number): Record<number, () => string> {
  const { b } = c;
  const [x, u, y] = [c.input(0), c.input(2), c.output()];
  const { gather, scatter } = along(c, axis);
  const hit = (value: string, extremum: string) => b.cast(b.equal(value, extremum), c.elemType(x));
  const parts = once(() => {
    const [data, updates] = [hit(x, y), hit(u, gather(y))];
    return { data, updates, share: b.div(c.cotangent(), scatter(data, updates, "add")) };
  });
  return {
    0: () => b.mul(parts().share, parts().data),
    2: () => b.mul(gather(parts().share), parts().updates),
  };
}
