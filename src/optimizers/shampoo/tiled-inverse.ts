/**
 * The inverse of a positive definite matrix in tiles, by halves: with P = A₁₁⁻¹, W = P·A₁₂ and the Schur complement
 * S = A₂₂ − A₁₂ᵀ·W,
 *
 *     A⁻¹ = | P + W·S⁻¹·Wᵀ   −W·S⁻¹ |
 *           |     …             S⁻¹ |
 *
 * which costs about as much as one product of two such matrices. P is explicit, so W carries its rounding, and the Schur
 * complement of a matrix with condition c loses c² of its digits; with W ← W + P·(A₁₂ − A₁₁·W) it loses c. Small blocks go to ONNX Runtime's own Inverse (an LU
 * decomposition on one thread), which is faster there than more halves.
 */
import type { GraphBuilder } from "../../onnx/builder.js";
import { CONTRIBUTED } from "../../onnx/contributed.js";
import type { SymmetricTiles, Tiling } from "./tiles.js";

/** Size from which a block is halved: at 64 Inverse takes 50 µs, and a node about 4. */
const SMALLEST_HALVED = 96;

/**
 * A⁻¹; not finite, or meaningless, where A is not positive definite.
 * @param refined whether W is refined, for conditions above some hundreds.
 */
export function emitTiledInverse(b: GraphBuilder, tiling: Tiling, a: SymmetricTiles, refined: boolean): SymmetricTiles {
  const tiles = new Map<string, string>();
  const key = (i: number, j: number) => `${i},${j}`;
  tiling.map(a, (tile, i, j) => {
    tiles.set(key(i, j), tile);
    return tile;
  });
  const inverse = invertRange(0, tiling.count, tiles);
  return tiling.map(a, (_, i, j) => inverse.get(key(i, j)) as string);

  function invertRange(start: number, end: number, of: ReadonlyMap<string, string>): Map<string, string> {
    if (end - start === 1) {
      return new Map([
        [key(start, start), emitInverse(b, of.get(key(start, start)) as string, tiling.side(start), refined)],
      ]);
    }
    const middle = start + Math.floor((end - start) / 2);
    const [first, second] = [range(start, middle), range(middle, end)];
    const get = (x: ReadonlyMap<string, string>, i: number, j: number) => x.get(key(i, j)) as string;
    const p = invertRange(start, middle, of);
    // alpha·X·Y + Z for a symmetric X.
    const times = (
      x: ReadonlyMap<string, string>,
      y: ReadonlyMap<string, string>,
      z?: ReadonlyMap<string, string>,
      alpha = 1,
    ) => {
      const made = new Map<string, string>();
      for (const i of first) {
        for (const j of second) {
          let sum = z?.get(key(i, j));
          for (const k of first) {
            sum = b.gemm(get(x, Math.min(i, k), Math.max(i, k)), get(y, k, j), {
              transA: k < i,
              alpha,
              ...(sum !== undefined && { c: sum }),
            });
          }
          made.set(key(i, j), sum as string);
        }
      }
      return made;
    };
    let w = times(p, of);
    if (refined) w = times(p, times(of, w, of, -1), w);
    const schur = new Map<string, string>();
    for (const i of second) {
      for (const j of second.filter((other) => other >= i)) {
        let sum = get(of, i, j);
        for (const k of first) sum = b.gemm(get(of, k, i), get(w, k, j), { transA: true, alpha: -1, c: sum });
        schur.set(key(i, j), sum);
      }
    }
    const result = invertRange(middle, end, schur);
    for (const i of first) {
      for (const j of second) {
        let sum: string | undefined;
        for (const k of second) {
          sum = b.gemm(get(w, i, k), get(result, Math.min(k, j), Math.max(k, j)), {
            transB: j < k,
            alpha: -1,
            ...(sum !== undefined && { c: sum }),
          });
        }
        result.set(key(i, j), sum as string);
      }
    }
    for (const i of first) {
      for (const j of first.filter((other) => other >= i)) {
        let sum = get(p, i, j);
        for (const k of second) sum = b.gemm(get(result, i, k), get(w, j, k), { transB: true, alpha: -1, c: sum });
        result.set(key(i, j), sum);
      }
    }
    return result;
  }
}

function range(start: number, end: number): number[] {
  return Array.from({ length: end - start }, (_, i) => start + i);
}

/** The inverse of a matrix as a whole, [size, size]. */
function emitInverse(b: GraphBuilder, a: string, size: number, refined: boolean): string {
  if (size < SMALLEST_HALVED) {
    const inverse = b.node("Inverse", [a], { domain: CONTRIBUTED })[0] as string;
    return b.mul(b.add(inverse, b.transpose(inverse, [1, 0])), b.f64(0.5));
  }
  const half = Math.ceil(size / 2);
  const part = (from: [number, number], to: [number, number]) => b.slice(a, from, to, [0, 1]);
  const corner = part([0, half], [half, size]);
  const start = part([0, 0], [half, half]);
  const p = emitInverse(b, start, half, refined);
  let w = b.matMul(p, corner);
  if (refined) w = b.gemm(p, b.gemm(start, w, { alpha: -1, c: corner }), { c: w });
  const schur = b.gemm(corner, w, { transA: true, alpha: -1, c: part([half, half], [size, size]) });
  const last = emitInverse(b, schur, size - half, refined);
  const side = b.gemm(w, last, { alpha: -1 });
  const first = b.gemm(side, w, { transB: true, alpha: -1, c: p });
  return b.concat([b.concat([first, side], 1), b.concat([b.transpose(side, [1, 0]), last], 1)], 0);
}
