/** Random numbers inside a graph: counter-based, so the same seed gives the same bits on every run, thread count and device. */
import { FishyError } from "../errors.js";
import type { GraphBuilder } from "../onnx/builder.js";
import { DataType } from "../onnx/proto.js";
import {
  COLUMN_WORDS,
  COUNTER_STEP,
  DROPPED,
  HALF,
  lanesOf,
  ROUND_CONSTANTS,
  ROW_WIDTH,
  streamConstants,
  UNIFORM_STEP,
} from "./counter-hash.js";
import type { RandomSource } from "./family.js";
import { flatten, unflatten } from "./shapes.js";
import { sharedValue } from "./shared-values.js";

/**
 * A source whose draws depend on the seed, the boundary's number, the position of the draw among the source's draws, and
 * the element's flat index; on nothing else.
 *
 * @param seed name of an int64 scalar in the graph
 * @param boundary a number that no other source with this seed has
 */
export function counterRandom(seed: string, boundary: number): RandomSource {
  let calls = 0;
  return {
    uniform(b, shape) {
      const call = calls++;
      return b.scope("random", () => emitUniform(b, seed, boundary, call, shape));
    },
    integers(b, shape, bits) {
      const call = calls++;
      return b.scope("random", () => emitIntegers(b, { seed, boundary, call, shape, bits }));
    },
  };
}

function emitUniform(b: GraphBuilder, seed: string, boundary: number, call: number, shape: string): string {
  const size = b.reduce("ReduceProd", shape, undefined, true);
  const words = emitWords(b, { seed, boundary, call, count: size });
  const bits = b.cast(b.div(words, b.u32(DROPPED)), DataType.FLOAT);
  const uniform = b.add(b.mul(bits, b.f32(UNIFORM_STEP)), b.f32(UNIFORM_STEP / 2));
  return unflatten(b, firstOf(b, uniform, size), shape, "uniform");
}

/** Every word serves as many elements as its upper 30 bits suffice for: one for each lane, 1024 elements further. */
function emitIntegers(
  b: GraphBuilder,
  { seed, boundary, call, shape, bits }: Stream & { readonly shape: string; readonly bits: number },
): string {
  const size = b.reduce("ReduceProd", shape, undefined, true);
  const lanes = lanesOf(bits);
  const count = b.div(b.add(size, b.i64([lanes - 1])), b.i64([lanes]));
  // A word is wanted for each of `lanes` rows in turn, whole rows of them.
  const words = emitWords(b, { seed, boundary, call, count: lanes === 1 ? size : count });
  const multipliers = Uint32Array.from({ length: lanes }, (_, lane) => 2 ** (bits * lane));
  const brought =
    lanes === 1
      ? words
      : b.mul(b.unsqueeze(words, [1]), b.initializer("lanes", DataType.UINT32, [1, lanes, 1], multipliers));
  const integers = b.div(brought, b.u32(2 ** (32 - bits)));
  return unflatten(b, firstOf(b, integers, size), shape, "integers");
}

interface Stream {
  readonly seed: string;
  readonly boundary: number;
  readonly call: number;
}

/** The first `size` elements, `size` an int64 vector of one. */
function firstOf(b: GraphBuilder, x: string, size: string): string {
  return b.op("Slice", [flatten(b, x), b.i64([0]), size, b.i64([0])]);
}

/** uint32 words in rows of `ROW_WIDTH`, at least `count` of them. */
function emitWords(b: GraphBuilder, { seed, boundary, call, count }: Stream & { readonly count: string }): string {
  const words = emitSeedWords(b, seed);
  const [, , , k3, k4, k5] = ROUND_CONSTANTS;
  const { scale, offset } = streamConstants(boundary, call);
  const first = b.add(b.mul(words[0], b.u32(scale[0])), b.u32(offset[0]));
  const second = b.add(b.mul(words[1], b.u32(scale[1])), b.u32(offset[1]));

  const rowCount = b.div(b.add(count, b.i64([ROW_WIDTH - 1])), b.i64([ROW_WIDTH]));
  // int32 because WebGPU's Range has no int64.
  const limit = b.cast(b.squeeze(rowCount, [0]), DataType.INT32);
  const rows = b.cast(b.op("Range", [b.i32(0), limit, b.i32(1)]), DataType.UINT32);
  const add = emitMix(b, b.add(b.mul(b.unsqueeze(rows, [1]), b.u32(COUNTER_STEP)), first));
  const half = emitRound(b, b.add(add, second), k5);
  const multiply = b.add(b.add(half, half), b.u32(1));

  const word = b.add(b.mul(emitColumns(b), multiply), add);
  return emitRound(b, emitRound(b, word, k3), k4);
}

function emitRound(b: GraphBuilder, x: string, k: number): string {
  const y = b.add(x, b.div(x, b.u32(HALF)));
  return b.mul(y, b.add(b.add(y, y), b.u32(k)));
}

function emitMix(b: GraphBuilder, x: string): string {
  const [k0, k1, k2] = ROUND_CONSTANTS;
  return emitRound(b, emitRound(b, emitRound(b, b.add(x, b.u32(COUNTER_STEP)), k0), k1), k2);
}

function emitSeedWords(b: GraphBuilder, seed: string): readonly [string, string] {
  return sharedValue(b, `seed:${seed}`, () => {
    const low = b.cast(seed, DataType.UINT32);
    // Subtracting the low word first makes the division exact, so that it floors for negative seeds too.
    const high = b.cast(b.div(b.sub(seed, b.cast(low, DataType.INT64)), b.i64(2 ** 32)), DataType.UINT32);
    const first = emitMix(b, b.add(emitMix(b, low), high));
    return [first, emitMix(b, b.add(low, first))] as const;
  });
}

function emitColumns(b: GraphBuilder): string {
  return sharedValue(b, "columns", () => b.initializer("columns", DataType.UINT32, [ROW_WIDTH], COLUMN_WORDS));
}

/** +1 or −1 with equal chances, float32, of the shape that the int64 vector `shape` holds. */
export function coin(b: GraphBuilder, random: RandomSource, shape: string): string {
  const heads = b.cast(random.integers(b, shape, 1), DataType.FLOAT);
  return b.sub(b.add(heads, heads), b.f32(1));
}

/**
 * A dropout mask: 1/(1 − ratio) with probability 1 − ratio, else 0, so that its mean is 1.
 *
 * @param like a value of the mask's shape
 * @param ratio the probability of dropping an element, in [0, 1)
 * @returns the name of a float32 value
 */
export function dropoutMask(b: GraphBuilder, random: RandomSource, like: string, ratio: number): string {
  if (!(ratio >= 0 && ratio < 1)) {
    throw new FishyError(`A dropout ratio must lie in [0, 1); found ${ratio}.`);
  }
  const kept = b.cast(b.less(random.uniform(b, b.shape(like)), b.f32(1 - ratio)), DataType.FLOAT);
  return b.mul(kept, b.f32(1 / (1 - ratio)));
}
