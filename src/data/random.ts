/** Deterministic random numbers for the order of the data: the same on every machine and in every version. */

const MASK_64 = (1n << 64n) - 1n;

/** One output of SplitMix64 at state `x` (Steele, Lea, Flood 2014; constants of java.util.SplittableRandom's mix64). */
export function splitMix64(x: bigint): bigint {
  let z = (x + 0x9e3779b97f4a7c15n) & MASK_64;
  z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK_64;
  z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & MASK_64;
  return z ^ (z >> 31n);
}

/** 64 bits that depend on every word of the key: a chain of SplitMix64. */
export function hashWords(...words: readonly number[]): bigint {
  return words.reduce((hash, word) => splitMix64(hash ^ (BigInt(word) & MASK_64)), 0n);
}

/** The sfc32 generator (Doty-Humphrey, PractRand), seeded with 64 bits. */
export class Random {
  private a: number;
  private b: number;
  private c: number;
  private counter = 1;

  constructor(seed: bigint) {
    this.a = Number(seed & 0xffffffffn) | 0;
    this.b = Number((seed >> 32n) & 0xffffffffn) | 0;
    this.c = Number(splitMix64(seed) & 0xffffffffn) | 0;
    for (let i = 0; i < 15; i++) this.uint32();
  }

  uint32(): number {
    const t = (((this.a + this.b) | 0) + this.counter) | 0;
    this.counter = (this.counter + 1) | 0;
    this.a = this.b ^ (this.b >>> 9);
    this.b = (this.c + (this.c << 3)) | 0;
    this.c = (this.c << 21) | (this.c >>> 11);
    this.c = (this.c + t) | 0;
    return t >>> 0;
  }

  /** Uniform over 0 … bound − 1, without bias (values of the incomplete last interval are drawn again). */
  below(bound: number): number {
    const limit = 2 ** 32 - (2 ** 32 % bound);
    let value = this.uint32();
    while (value >= limit) value = this.uint32();
    return value % bound;
  }
}

/** 0 … length − 1 in an order that depends on the key alone (Fisher–Yates). */
export function permutation(length: number, ...key: readonly number[]): Uint32Array {
  const order = Uint32Array.from({ length }, (_, i) => i);
  const random = new Random(hashWords(...key));
  for (let i = length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    const other = order[j] as number;
    order[j] = order[i] as number;
    order[i] = other;
  }
  return order;
}
