/**
 * The hash behind the random numbers of a graph, in plain TypeScript: constants that the graph holds, and a twin of the
 * generator that gives the same bits (`random.ts` emits it as nodes).
 *
 * Only uint32 multiplication, addition and division are used, all wrapping: the integer arithmetic that every device of
 * ONNX Runtime has. Multiplying by constants and adding the high half is nearly linear and not enough (single-bit
 * differences pass through five such rounds with rms bias 0.06), so a round also squares: x(2x + k) with k odd is a
 * permutation of the 32-bit words (Rivest's RC6 uses it).
 *
 * Every row of `ROW_WIDTH` elements has a key of its own, a multiplier and an offset fully hashed from seed, stream and
 * row; every column a fixed random word. They meet in a multiply-add (pairwise independent over keys), and two rounds
 * follow on every element.
 */

/** Elements per row key. */
export const ROW_WIDTH = 1024;

/** What brings the high half of a word down. */
export const HALF = 2 ** 16;

/** Odd constants of the rounds. */
export const ROUND_CONSTANTS = [0x7feb352d, 0x846ca68b, 0x9e3779b1, 0x85ebca6b, 0xc2b2ae35, 0x31848bab] as const;

/** 2³² divided by the golden ratio: consecutive counters start far apart. */
export const COUNTER_STEP = 0x9e3779b9;

/** A uniform is (k + ½)·2⁻²³ of the upper 23 bits k: exact in float32, and inside (0, 1). */
export const DROPPED = 2 ** 9;
export const UNIFORM_STEP = 2 ** -23;

/** With y = x + ⌊x / 2¹⁶⌋: y(2y + k) mod 2³². */
function round(x: number, k: number): number {
  const y = (x + Math.floor((x >>> 0) / HALF)) | 0;
  return Math.imul(y, Math.imul(y, 2) + k) >>> 0;
}

/** A full mix: flipping any input bit flips every output bit with a chance near one half. */
export function mix(x: number): number {
  const [k0, k1, k2] = ROUND_CONSTANTS;
  return round(round(round((x + COUNTER_STEP) >>> 0, k0), k1), k2);
}

/** The fixed random words of the columns. */
export const COLUMN_WORDS = Uint32Array.from({ length: ROW_WIDTH }, (_, column) => mix(mix(column) + COUNTER_STEP));

/** What tells one stream from another: constants of (boundary, call) that turn the seed's two words into the stream's. */
export function streamConstants(boundary: number, call: number): { scale: [number, number]; offset: [number, number] } {
  const base = mix(mix(boundary + 1) + call);
  const word = (i: number) => mix(base + Math.imul(i + 1, COUNTER_STEP));
  return { scale: [(word(0) | 1) >>> 0, (word(1) | 1) >>> 0], offset: [word(2), word(3)] };
}

/** The seed's two words, hashed. */
function seedWords(seed: bigint): [number, number] {
  const low = Number(BigInt.asUintN(32, seed));
  const high = Number(BigInt.asUintN(32, seed >> 32n));
  const first = mix(mix(low) + high);
  return [first, mix(low + first)];
}

/** The 32-bit words of elements `0 … count − 1` of a stream; the uniforms use their upper 23 bits. */
export function counterWords(seed: bigint, boundary: number, call: number, count: number): Uint32Array {
  const words = seedWords(seed);
  const { scale, offset } = streamConstants(boundary, call);
  const first = (Math.imul(words[0], scale[0]) + offset[0]) >>> 0;
  const second = (Math.imul(words[1], scale[1]) + offset[1]) >>> 0;
  const [, , , k3, k4, k5] = ROUND_CONSTANTS;
  const out = new Uint32Array(count);
  for (let row = 0; row * ROW_WIDTH < count; row++) {
    const add = mix(first + Math.imul(row, COUNTER_STEP));
    const multiply = 2 * round(add + second, k5) + 1;
    const start = row * ROW_WIDTH;
    for (let i = 0; i < ROW_WIDTH && start + i < count; i++) {
      const x = (Math.imul(COLUMN_WORDS[i] as number, multiply) + add) >>> 0;
      out[start + i] = round(round(x, k3), k4);
    }
  }
  return out;
}

/** The uniforms of a stream, the same bits as the graph draws. */
export function counterUniforms(seed: bigint, boundary: number, call: number, count: number): Float32Array {
  return Float32Array.from(
    counterWords(seed, boundary, call, count),
    (word) => Math.floor(word / DROPPED) * UNIFORM_STEP + UNIFORM_STEP / 2,
  );
}

/** How many integers of `bits` bits a word gives; its lowest two bits, which the last round mixes least, serve none. */
export function lanesOf(bits: number): number {
  return Math.max(1, Math.floor(30 / bits));
}

/** The integers in [0, 2^bits) of elements `0 … count − 1` of a stream, the same as the graph draws. */
export function counterIntegers(seed: bigint, boundary: number, call: number, count: number, bits: number): Int32Array {
  const lanes = lanesOf(bits);
  const rows = Math.ceil(count / (lanes * ROW_WIDTH));
  const words = counterWords(seed, boundary, call, rows * ROW_WIDTH);
  return Int32Array.from({ length: count }, (_, i) => {
    const row = Math.floor(i / ROW_WIDTH);
    const word = words[Math.floor(row / lanes) * ROW_WIDTH + (i % ROW_WIDTH)] as number;
    return (word << (bits * (row % lanes))) >>> (32 - bits);
  });
}
