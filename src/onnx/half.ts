/** float16 (IEEE 754 binary16) and bfloat16, as their bits, to and from float32. `Math.f16round` is not in Node 20. */
import { DataType } from "./proto.js";

export function isHalf(type: number | null | undefined): type is typeof DataType.FLOAT16 | typeof DataType.BFLOAT16 {
  return type === DataType.FLOAT16 || type === DataType.BFLOAT16;
}

/** The float32 numbers of half-precision bits: exact. */
export function widen(type: number, bits: Uint16Array): Float32Array {
  const wide = new Uint32Array(bits.length);
  const convert = type === DataType.BFLOAT16 ? (half: number) => (half << 16) >>> 0 : float32Bits;
  for (let i = 0; i < bits.length; i++) wide[i] = convert(bits[i] as number);
  return new Float32Array(wide.buffer);
}

/** The bits of the nearest half-precision numbers, ties to even; what is too large becomes infinite. */
export function narrow(type: number, values: Float32Array): Uint16Array {
  const wide = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const convert = type === DataType.BFLOAT16 ? bfloat16Bits : float16Bits;
  const bits = new Uint16Array(values.length);
  for (let i = 0; i < bits.length; i++) bits[i] = convert(wide[i] as number);
  return bits;
}

function float32Bits(half: number): number {
  const sign = (half & 0x8000) << 16;
  const exponent = (half >> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 0x1f) return (sign | 0x7f800000 | (fraction << 13)) >>> 0;
  if (exponent > 0) return (sign | ((exponent + 112) << 23) | (fraction << 13)) >>> 0;
  if (fraction === 0) return sign >>> 0;
  // A subnormal: its leading one becomes the implied one.
  const shift = Math.clz32(fraction) - 21;
  return (sign | ((113 - shift) << 23) | (((fraction << shift) & 0x3ff) << 13)) >>> 0;
}

function float16Bits(wide: number): number {
  const sign = (wide >>> 16) & 0x8000;
  const magnitude = wide & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  // 65520, half way between the largest number and the next power of two.
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude >= 0x38800000) return sign | roundShift(magnitude - 0x38000000, 13);
  // A subnormal, in units of 2⁻²⁴; below 2⁻²⁵ nothing is left.
  if (magnitude < 0x33000000) return sign;
  return sign | roundShift((magnitude & 0x7fffff) | 0x800000, 126 - (magnitude >>> 23));
}

function bfloat16Bits(wide: number): number {
  if ((wide & 0x7fffffff) > 0x7f800000) return (wide >>> 16) | 0x40;
  return roundShift(wide, 16) & 0xffff;
}

/** `value / 2^bits`, ties to even. */
function roundShift(value: number, bits: number): number {
  const unit = 2 ** bits;
  const floor = Math.floor(value / unit);
  const rest = value - floor * unit;
  return rest > unit / 2 || (rest === unit / 2 && floor % 2 === 1) ? floor + 1 : floor;
}
