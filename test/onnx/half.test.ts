/** Half precision against its definition: every bit pattern, and rounding against the neighbours in exact arithmetic. */
import { describe, expect, it } from "vitest";
import { narrow, widen } from "../../src/onnx/half.js";
import { DataType } from "../../src/onnx/proto.js";

const ALL = Uint16Array.from({ length: 1 << 16 }, (_, bits) => bits);
const FORMATS = [
  { name: "float16", type: DataType.FLOAT16, fraction: 10, bias: 15 },
  { name: "bfloat16", type: DataType.BFLOAT16, fraction: 7, bias: 127 },
];

/** The number that IEEE 754 gives to the bits. */
function numberOf(bits: number, fraction: number, bias: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits & 0x7fff) >> fraction;
  const rest = bits & ((1 << fraction) - 1);
  if (exponent === 2 * bias + 1) return rest === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  if (exponent === 0) return sign * rest * 2 ** (1 - bias - fraction);
  return sign * (1 + rest / 2 ** fraction) * 2 ** (exponent - bias);
}

describe.each(FORMATS)("$name", ({ type, fraction, bias }) => {
  const values = Array.from(ALL, (bits) => numberOf(bits, fraction, bias));

  it("widens every number exactly", () => {
    const wide = widen(type, ALL);
    expect(values.findIndex((value, bits) => !Object.is(wide[bits], value))).toBe(-1);
  });

  it("narrows what it widened to the same bits, NaN to a NaN", () => {
    const back = narrow(type, widen(type, ALL));
    const strange = [...ALL].filter((bits) =>
      Number.isNaN(values[bits]) ? !Number.isNaN(values[back[bits] as number]) : back[bits] !== bits,
    );
    expect(strange).toEqual([]);
  });

  it("rounds to the nearest, ties to even", () => {
    const largest = ((2 * bias + 1) << fraction) - 1;
    for (let bits = 0; bits < largest; bits++) {
      const [low, high] = [values[bits] as number, values[bits + 1] as number];
      const middle = (low + high) / 2;
      // Only where the middle is a float32 (bfloat16's smallest subnormals are half a unit of nothing else).
      if (Math.fround(middle) !== middle) continue;
      const even = bits % 2 === 0 ? bits : bits + 1;
      const below = justBelow(middle);
      const above = justAbove(middle);
      const found = narrow(type, Float32Array.of(below, middle, above, -middle));
      expect([...found], `between ${low} and ${high}`).toEqual([bits, even, bits + 1, even | 0x8000]);
    }
  });

  it("overflows to infinity from half a unit above the largest number", () => {
    const largest = values[((2 * bias + 1) << fraction) - 1] as number;
    const unit = 2 ** (bias - fraction);
    const infinity = (2 * bias + 1) << fraction;
    const middle = Math.fround(largest + unit / 2);
    expect([...narrow(type, Float32Array.of(justBelow(middle), middle))]).toEqual([infinity - 1, infinity]);
  });
});

function neighbour(value: number, step: number): number {
  const bits = new Uint32Array(Float32Array.of(value).buffer);
  bits[0] = (bits[0] as number) + step;
  return new Float32Array(bits.buffer)[0] as number;
}
const justBelow = (value: number) => neighbour(value, -1);
const justAbove = (value: number) => neighbour(value, 1);
