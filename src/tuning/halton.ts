/**
 * Quasi-random points: the Halton sequence with its digits permuted at random. Every prefix covers the cube evenly, in
 * every coordinate, so that a search may end, or go on, after any number of trials.
 *
 * J. H. Halton, "On the efficiency of certain quasi-random sequences of points in evaluating multi-dimensional
 * integrals", 1960; the permutation of each digit by itself is A. B. Owen's, "A randomized Halton algorithm in R",
 * arXiv:1706.02808.
 */
import { permutation } from "../data/random.js";

/**
 * A point of the sequence.
 * @param index from 0.
 * @param seed chooses the permutations; undefined for the plain sequence.
 * @returns one number in [0, 1) for each dimension.
 */
export function haltonPoint(index: number, dimensions: number, seed?: number): number[] {
  return primes(dimensions).map((base, dimension) => {
    // As many digits as a double holds.
    const digits = Math.floor(52 / Math.log2(base));
    let rest = index;
    let place = 1 / base;
    let value = 0;
    for (let digit = 0; digit < digits; digit++) {
      const plain = rest % base;
      value += place * (seed === undefined ? plain : (permutation(base, seed, dimension, digit)[plain] as number));
      rest = Math.floor(rest / base);
      place /= base;
    }
    return value;
  });
}

function primes(count: number): number[] {
  const found: number[] = [];
  for (let candidate = 2; found.length < count; candidate++) {
    if (found.every((prime) => candidate % prime !== 0)) found.push(candidate);
  }
  return found;
}
