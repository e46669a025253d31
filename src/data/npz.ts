/** NumPy's .npz: a ZIP archive of .npy files, stored or deflated (APPNOTE.TXT of PKWARE, sections 4.3 and 4.5.3). */
import { crc32, inflateRawSync } from "node:zlib";
import { FishyError, messageOf } from "../errors.js";
import type { ArrayFile } from "./formats.js";
import { decodeNpy } from "./npy.js";

const END_OF_DIRECTORY = 0x06054b50;
const DIRECTORY_ENTRY = 0x02014b50;
const ZIP64_FIELD = 1;
const MAX_32 = 0xffffffff;

interface Entry {
  readonly name: string;
  readonly method: number;
  readonly crc: number;
  readonly compressed: number;
  readonly offset: number;
}

/**
 * Reads the arrays of a .npz file by name.
 * @throws FishyError when the archive is damaged, encrypted, or compressed in another way.
 */
export function decodeNpz(bytes: Uint8Array, source: string): Map<string, ArrayFile> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const arrays = new Map<string, ArrayFile>();
  try {
    for (const entry of readDirectory(view, bytes, source)) {
      if (!entry.name.endsWith(".npy")) continue;
      const name = entry.name.slice(0, -".npy".length);
      arrays.set(name, decodeNpy(readEntry(view, bytes, entry, source), `array '${name}' of ${source}`));
    }
  } catch (error) {
    if (error instanceof FishyError) throw error;
    throw new FishyError(`${source} is not a whole .npz file: ${messageOf(error)}.`);
  }
  if (arrays.size === 0) throw new FishyError(`${source} holds no arrays.`);
  return arrays;
}

function readDirectory(view: DataView, bytes: Uint8Array, source: string): Entry[] {
  let end = bytes.length - 22;
  while (end >= 0 && view.getUint32(end, true) !== END_OF_DIRECTORY) end--;
  if (end < 0) throw new FishyError(`${source} is not a whole .npz file: it has no ZIP directory.`);
  const count = view.getUint16(end + 10, true);
  let at = view.getUint32(end + 16, true);
  const entries: Entry[] = [];
  for (let i = 0; i < count; i++) {
    if (view.getUint32(at, true) !== DIRECTORY_ENTRY) throw new Error(`entry ${i} of its directory is damaged`);
    const nameLength = view.getUint16(at + 28, true);
    const extraLength = view.getUint16(at + 30, true);
    const commentLength = view.getUint16(at + 32, true);
    if (view.getUint16(at + 8, true) & 1) throw new Error("it is encrypted");
    const sizes = {
      uncompressed: view.getUint32(at + 24, true),
      compressed: view.getUint32(at + 20, true),
      offset: view.getUint32(at + 42, true),
    };
    const extra = at + 46 + nameLength;
    readZip64(view, extra, extraLength, sizes);
    entries.push({
      name: new TextDecoder().decode(bytes.subarray(at + 46, extra)),
      method: view.getUint16(at + 10, true),
      crc: view.getUint32(at + 16, true),
      compressed: sizes.compressed,
      offset: sizes.offset,
    });
    at = extra + extraLength + commentLength;
  }
  return entries;
}

/** Replaces sizes that do not fit 32 bits by those of the ZIP64 extra field, in the field's order. */
function readZip64(
  view: DataView,
  start: number,
  length: number,
  sizes: { uncompressed: number; compressed: number; offset: number },
): void {
  for (let at = start; at + 4 <= start + length; at += 4 + view.getUint16(at + 2, true)) {
    if (view.getUint16(at, true) !== ZIP64_FIELD) continue;
    let field = at + 4;
    for (const key of ["uncompressed", "compressed", "offset"] as const) {
      if (sizes[key] !== MAX_32) continue;
      sizes[key] = Number(view.getBigUint64(field, true));
      field += 8;
    }
  }
}

function readEntry(view: DataView, bytes: Uint8Array, entry: Entry, source: string): Uint8Array {
  const start = entry.offset + 30 + view.getUint16(entry.offset + 26, true) + view.getUint16(entry.offset + 28, true);
  const body = bytes.subarray(start, start + entry.compressed);
  if (body.length !== entry.compressed) throw new Error(`'${entry.name}' is cut off`);
  if (entry.method !== 0 && entry.method !== 8) {
    throw new FishyError(
      `'${entry.name}' of ${source} is compressed by method ${entry.method}; save it with numpy.savez or savez_compressed.`,
    );
  }
  const content = entry.method === 8 ? new Uint8Array(inflateRawSync(body)) : body;
  if (crc32(content) !== entry.crc) throw new Error(`the checksum of '${entry.name}' is wrong`);
  return content;
}
