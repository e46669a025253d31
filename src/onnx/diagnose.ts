/** Says what a file that does not decode as an ONNX model is: another format, or a model that is cut off. */

const decoder = new TextDecoder("latin1");

/** First bytes of files that people take for ONNX models, and what to do with them. */
const FORMATS: readonly { matches: (head: string) => boolean; what: string }[] = [
  {
    matches: (head) => head.startsWith("version https://git-lfs"),
    what: "a Git LFS pointer, not the file itself: run `git lfs pull`",
  },
  {
    matches: (head) => head.startsWith("PK\x03\x04"),
    what: "a zip archive, as torch.save and torch.jit.save write: export the model with torch.onnx.export",
  },
  { matches: (head) => head.startsWith("\x80\x02"), what: "a Python pickle: export the model with torch.onnx.export" },
  {
    matches: (head) => head.startsWith("\x89HDF"),
    what: "an HDF5 file, as Keras writes: convert the model with tf2onnx",
  },
  { matches: (head) => head.slice(4, 8) === "TFL3", what: "a TensorFlow Lite file: convert the model with tf2onnx" },
  {
    matches: (head) => head.slice(4, 8) === "ORTM",
    what: "a model in ONNX Runtime's own format (.ort), which cannot be rewritten: use the .onnx file that it was made from",
  },
  {
    matches: (head) => head.slice(4, 8) === "ODTC",
    what: "a checkpoint of ONNX Runtime's training API, which holds no graph: give the model it belongs to",
  },
  {
    matches: (head) => head.slice(8, 10) === '{"',
    what: "a safetensors file, which holds weights and no graph: export the model with torch.onnx.export",
  },
  { matches: (head) => head.startsWith("\x1f\x8b"), what: "gzipped: unpack it first" },
  { matches: (head) => /^\s*<(!doctype|html)/i.test(head), what: "a web page: the download did not give the file" },
  { matches: (head) => /^\s*[[{]/.test(head), what: "text that looks like JSON" },
];

/** The fields of ModelProto by number, and whether they are varints (wire type 0) or length-delimited (2). */
const MODEL_FIELDS: Record<number, { name: string; wireType: 0 | 2 }> = {
  1: { name: "ir_version", wireType: 0 },
  2: { name: "producer_name", wireType: 2 },
  3: { name: "producer_version", wireType: 2 },
  4: { name: "domain", wireType: 2 },
  5: { name: "model_version", wireType: 0 },
  6: { name: "doc_string", wireType: 2 },
  7: { name: "graph", wireType: 2 },
  8: { name: "opset_import", wireType: 2 },
  14: { name: "metadata_props", wireType: 2 },
  20: { name: "training_info", wireType: 2 },
  25: { name: "functions", wireType: 2 },
  26: { name: "configuration", wireType: 2 },
};

export interface Diagnosis {
  readonly kind: "other format" | "cut off" | "not ONNX";
  /** Completes the sentence "the file is …". */
  readonly what: string;
}

export function diagnose(bytes: Uint8Array): Diagnosis {
  const head = decoder.decode(bytes.subarray(0, 64));
  const format = FORMATS.find(({ matches }) => matches(head));
  if (format) return { kind: "other format", what: format.what };
  return cutOff(bytes) ?? { kind: "not ONNX", what: "not an ONNX model" };
}

/** Walks the outermost fields; a model that starts as one and ends inside a field is cut off. */
function cutOff(bytes: Uint8Array): Diagnosis | undefined {
  let position = 0;
  let fieldsRead = 0;
  const varint = (): number | undefined => {
    let value = 0;
    for (let shift = 0; shift < 64 && position < bytes.length; shift += 7) {
      const byte = bytes[position++] as number;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    return undefined;
  };
  const cut = (where: string): Diagnosis => ({ kind: "cut off", what: `an ONNX model that is cut off ${where}` });
  while (position < bytes.length) {
    const tag = varint();
    if (tag === undefined) return fieldsRead > 0 ? cut("between two fields") : undefined;
    const field = MODEL_FIELDS[Math.floor(tag / 8)];
    if (!field || tag % 8 !== field.wireType) return undefined;
    const value = varint();
    if (value === undefined) return fieldsRead > 0 ? cut(`inside its ${field.name}`) : undefined;
    if (field.wireType === 2) {
      const missing = position + value - bytes.length;
      if (missing > 0)
        return fieldsRead > 0 ? cut(`inside its ${field.name}: ${missing} bytes are missing`) : undefined;
      position += value;
    }
    fieldsRead++;
  }
  return fieldsRead > 1
    ? { kind: "cut off", what: "an ONNX model that is cut off after a field or damaged inside one" }
    : undefined;
}
