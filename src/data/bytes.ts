/** Bytes of files, and their order. */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";

/** One read call takes at most 2 GiB. */
const READ_BYTES = 2 ** 30;

/** A whole file; unlike `readFileSync`, also one of more than 2 GiB. */
export function readBytes(path: string): Uint8Array {
  const file = openSync(path, "r");
  try {
    const bytes = new Uint8Array(fstatSync(file).size);
    for (let done = 0; done < bytes.length; ) {
      const read = readSync(file, bytes, done, Math.min(READ_BYTES, bytes.length - done), done);
      if (read === 0) throw new Error("the file became shorter while it was read");
      done += read;
    }
    return bytes;
  } finally {
    closeSync(file);
  }
}

/**
 * Some bytes of a file.
 * @throws Error when the file ends before them.
 */
export function readRange(path: string, start: number, end: number): Uint8Array {
  const file = openSync(path, "r");
  try {
    const bytes = new Uint8Array(end - start);
    for (let done = 0; done < bytes.length; ) {
      const read = readSync(file, bytes, done, Math.min(READ_BYTES, bytes.length - done), start + done);
      if (read === 0) throw new Error("the file is cut off");
      done += read;
    }
    return bytes;
  } finally {
    closeSync(file);
  }
}

/** A copy of `bytes` with every element of `size` bytes reversed: big-endian to little-endian; `bytes` itself for size 1. */
export function swapBytes(bytes: Uint8Array, size: number): Uint8Array {
  if (size === 1) return bytes;
  const copy = Buffer.from(bytes);
  if (size === 2) copy.swap16();
  else if (size === 4) copy.swap32();
  else copy.swap64();
  return copy;
}
