/** Arithmetic on dimensions that may be symbols: `batch`, `6*batch`. Whatever cannot be said exactly is unknown (null). */
import type { Dim } from "./builder.js";

interface Product {
  readonly factor: number;
  /** Sorted. */
  readonly symbols: readonly string[];
}

const PLAIN = /^[A-Za-z_][\w.]*$/;

function productOf(dim: Dim): Product | undefined {
  if (dim === null) return undefined;
  if (typeof dim === "number") return { factor: dim, symbols: [] };
  const parts = dim.split("*");
  const factor = /^\d+$/.test(parts[0] as string) ? Number(parts.shift()) : 1;
  // A name that an exporter made of more than a product, such as `batch + 1`, is one symbol.
  return parts.every((part) => PLAIN.test(part)) ? { factor, symbols: parts.sort() } : { factor: 1, symbols: [dim] };
}

function dimOf({ factor, symbols }: Product): Dim {
  if (factor === 0 || symbols.length === 0) return factor;
  return [...(factor === 1 ? [] : [String(factor)]), ...symbols].join("*");
}

/** The product of dimensions. */
export function multiply(dims: readonly Dim[]): Dim {
  let factor = 1;
  const symbols: string[] = [];
  for (const dim of dims) {
    if (dim === 0) return 0;
    const product = productOf(dim);
    if (!product) return null;
    factor *= product.factor;
    symbols.push(...product.symbols);
  }
  return dimOf({ factor, symbols: symbols.sort() });
}

/** a / b where it is known to be whole. */
export function divide(a: Dim, b: Dim): Dim {
  const [top, bottom] = [productOf(a), productOf(b)];
  if (!top || !bottom || bottom.factor === 0 || !Number.isInteger(top.factor / bottom.factor)) return null;
  const symbols = [...top.symbols];
  for (const symbol of bottom.symbols) {
    const at = symbols.indexOf(symbol);
    if (at < 0) return null;
    symbols.splice(at, 1);
  }
  return dimOf({ factor: top.factor / bottom.factor, symbols });
}

export function addDims(a: Dim, b: Dim): Dim {
  if (a === 0) return b;
  if (b === 0) return a;
  return typeof a === "number" && typeof b === "number" ? a + b : null;
}

export function subtractDims(a: Dim, b: Dim): Dim {
  if (b === 0) return a;
  if (a !== null && a === b) return 0;
  return typeof a === "number" && typeof b === "number" ? a - b : null;
}

/** The shape of a broadcast; undefined when a rank is. */
export function broadcastShapes(shapes: readonly (readonly Dim[] | undefined)[]): Dim[] | undefined {
  if (shapes.some((shape) => !shape)) return undefined;
  const rank = Math.max(...shapes.map((shape) => shape?.length ?? 0));
  return Array.from({ length: rank }, (_, i) => {
    const dims = (shapes as (readonly Dim[])[]).map(
      (shape) => shape[shape.length - rank + i] ?? (i < rank - shape.length ? 1 : null),
    );
    return dims.reduce(broadcastDim);
  });
}

function broadcastDim(a: Dim, b: Dim): Dim {
  if (a === 1) return b;
  if (b === 1 || a === b) return a;
  // A number above 1 wins over what can only be it or 1.
  if (typeof a === "number") return a;
  return typeof b === "number" ? b : null;
}
