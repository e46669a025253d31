/** NumPy's .npy files. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { pseudoRandom } from "./mlp.js";

/** NumPy's .npy format, version 1.0 (numpy.lib.format). */
export function npyBytes(descr: string, dims: readonly number[], data: ArrayBufferView): Uint8Array {
  const shape = `(${dims.join(", ")}${dims.length === 1 ? "," : ""})`;
  const text = `{'descr': '${descr}', 'fortran_order': False, 'shape': ${shape}, }`;
  const header = `${text.padEnd(117)}\n`;
  const bytes = new Uint8Array(10 + header.length + data.byteLength);
  bytes.set([0x93, ...Buffer.from("NUMPY"), 1, 0, header.length & 255, header.length >> 8]);
  bytes.set(Buffer.from(header, "latin1"), 10);
  bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), 10 + header.length);
  return bytes;
}

/** Writes `x.npy` and `labels.npy`: examples for `mlp_tanh`, of 20 features and 5 classes in turn. */
export function writeExamples(folder: string, count = 64): void {
  const [features, classes] = [20, 5];
  const x = Float32Array.from(pseudoRandom(5, count * features));
  const labels = BigInt64Array.from({ length: count }, (_, i) => BigInt(i % classes));
  writeFileSync(join(folder, "x.npy"), npyBytes("<f4", [count, features], x));
  writeFileSync(join(folder, "labels.npy"), npyBytes("<i8", [count], labels));
}
