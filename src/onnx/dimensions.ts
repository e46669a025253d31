/** Arithmetic on dimensions that may be symbols: `batch`, `6*batch`. Whatever cannot be said exactly is unknown (null). */
import type { Dim } from "./builder.js";

interface Product {
  readonly factor: number;
  /** Sorted. */
  readonly symbols: readonly string[];
}

const NAME = /^[A-Za-z_][\w.]*$/;

function productOf(dim: Dim): Product | undefined {
  if (dim === null) return undefined;
  if (typeof dim === "number") return { factor: dim, symbols: [] };
  const parts = factorsOf(dim);
  const factor = /^\d+$/.test(parts[0] as string) ? Number(parts.shift()) : 1;
  if (parts.every((part) => NAME.test(part) || isWrapped(part))) return { factor, symbols: parts.sort() };
  // More than a product, such as `batch + 1`, is one symbol.
  return { factor: 1, symbols: [wrap(dim)] };
}

function dimOf({ factor, symbols }: Product): Dim {
  if (factor === 0 || symbols.length === 0) return factor;
  if (factor === 1 && symbols.length === 1) {
    const [symbol] = symbols as [string];
    return isWrapped(symbol) ? symbol.slice(1, -1) : symbol;
  }
  return [...(factor === 1 ? [] : [String(factor)]), ...symbols].join("*");
}

function wrap(dim: number | string): string {
  const text = String(dim);
  return /^[\w.]+$/.test(text) || isWrapped(text) ? text : `(${text})`;
}

/** Whether the first parenthesis closes at the end. */
function isWrapped(text: string): boolean {
  if (!text.startsWith("(")) return false;
  let depth = 0;
  for (let i = 0; i < text.length; i++) {
    if (text[i] === "(") depth++;
    if (text[i] === ")" && --depth === 0) return i === text.length - 1;
  }
  return false;
}

/** The parts between the `*` outside parentheses. */
function factorsOf(text: string): string[] {
  const parts = [""];
  let depth = 0;
  for (const char of text) {
    if (char === "(") depth++;
    if (char === ")") depth--;
    if (char === "*" && depth === 0) parts.push("");
    else parts[parts.length - 1] += char;
  }
  return parts;
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

/** a + b. A sum with a symbol becomes a symbol of its own. */
export function addDims(a: Dim, b: Dim): Dim {
  if (a === 0) return b;
  if (b === 0) return a;
  if (typeof a === "number" && typeof b === "number") return a + b;
  return isSize(a) && isSize(b) ? [a, b].map(wrap).sort().join(" + ") : null;
}

/** a / b rounded down, for sizes: a quotient that need not be whole becomes a symbol of its own. */
export function floorDivide(a: Dim, b: Dim): Dim {
  if (b === 0) return null;
  if (typeof a === "number" && typeof b === "number") return Math.trunc(a / b);
  return divide(a, b) ?? (isSize(a) && isSize(b) ? `${wrap(a)} / ${wrap(b)}` : null);
}

function isSize(dim: Dim): dim is number | string {
  return typeof dim === "string" || (dim !== null && dim >= 0);
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
