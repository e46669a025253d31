/** Byte order. */

/** A copy of `bytes` with every element of `size` bytes reversed: big-endian to little-endian; `bytes` itself for size 1. */
export function swapBytes(bytes: Uint8Array, size: number): Uint8Array {
  if (size === 1) return bytes;
  const copy = Buffer.from(bytes);
  if (size === 2) copy.swap16();
  else if (size === 4) copy.swap32();
  else copy.swap64();
  return copy;
}
