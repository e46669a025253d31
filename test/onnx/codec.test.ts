import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { onnx } from "onnx-proto";
import { describe, expect, it } from "vitest";
import { cloneModel, decodeModel, encodeModel, withFields } from "../../src/onnx/codec.js";
import type { TensorProto } from "../../src/onnx/proto.js";
import { dataOf, dimsOf } from "../../src/onnx/tensor.js";
import { GRAPHS } from "../support/shared.js";
import { field } from "../support/wire.js";

const folder = join(GRAPHS, "pytorch");
const names = readdirSync(folder).filter((name) => !name.includes("."));

describe("codec", () => {
  it.each(names)("round-trips %s byte for byte", (name) => {
    const bytes = readFileSync(join(folder, name, "model.onnx"));
    expect(Buffer.compare(encodeModel(decodeModel(bytes)), bytes)).toBe(0);
  });

  it.each(names)("says of %s what onnx-proto says", (name) => {
    const model = decodeModel(readFileSync(join(folder, name, "model.onnx")));
    const other = onnx.ModelProto.decode(encodeModel(model));
    expect(other.graph?.node?.map((node) => [node.name, node.opType, node.input, node.output])).toEqual(
      model.graph.node.map((node) => [node.name, node.opType, node.input, node.output]),
    );
    expect(other.graph?.initializer?.length).toBe(model.graph.initializer.length);
    for (const [index, tensor] of (other.graph?.initializer ?? []).entries()) {
      const ours = model.graph.initializer[index] as TensorProto;
      expect([tensor.name, tensor.dims?.map(Number)]).toEqual([ours.name, dimsOf(ours)]);
      if (!tensor.rawData?.length) continue;
      const data = dataOf(ours);
      expect(Buffer.compare(tensor.rawData, new Uint8Array(data.buffer, data.byteOffset, data.byteLength))).toBe(0);
    }
  });
});

describe("a model with metadata on nodes and a field from the future", () => {
  // Field numbers of IR 10 (metadata_props), and one that ONNX does not have yet in every message.
  const future = field(100, "from the future");
  const entry = [...field(1, "pkg.torch.onnx.name_scopes"), ...field(2, "['', 'fc']")];
  const value = (name: string) => [
    ...field(1, name),
    ...field(2, field(1, [...field(1, 1), ...future])),
    ...field(4, entry),
  ];
  const alpha = [...field(1, "alpha"), 0x15, 0, 0, 0, 0x3f, ...field(20, 1), ...future];
  const node = [
    ...field(1, "x"),
    ...field(2, "y"),
    ...field(3, "act"),
    ...field(4, "LeakyRelu"),
    ...field(5, alpha),
    ...field(9, entry),
    ...future,
  ];
  const tensor = [...field(1, 0), ...field(2, 1), ...field(8, "w"), ...field(16, entry), ...future];
  const graph = [
    ...field(1, node),
    ...field(2, "g"),
    ...field(5, tensor),
    ...field(11, value("x")),
    ...field(12, value("y")),
    ...field(16, entry),
    ...future,
  ];
  const bytes = Uint8Array.from([
    ...field(1, 13),
    ...field(2, "by hand"),
    ...field(7, graph),
    ...field(8, [...field(1, ""), ...field(2, 18), ...future]),
    ...field(14, entry),
    ...future,
  ]);

  it("keeps every byte in a round trip", () => {
    const model = decodeModel(bytes);
    expect(model.graph.node[0]?.metadataProps?.[0]?.value).toBe("['', 'fc']");
    expect(Buffer.from(encodeModel(model)).equals(bytes)).toBe(true);
    expect(Buffer.from(encodeModel(cloneModel(model))).equals(bytes)).toBe(true);
  });

  it("keeps them when another field is replaced", () => {
    const model = decodeModel(bytes);
    const renamed = withFields(model, { producerName: "BY HAND" });
    expect(model.producerName).toBe("by hand");
    expect(Buffer.from(encodeModel(renamed)).toString("latin1")).toBe(
      Buffer.from(bytes).toString("latin1").replace("by hand", "BY HAND"),
    );
  });

  it("is not what onnx-proto gives back, or this test proves nothing", () => {
    const other = onnx.ModelProto.encode(onnx.ModelProto.decode(bytes)).finish();
    expect(other.length).toBeLessThan(bytes.length);
  });
});
