/** Lays tensors out in one external data file. */
import { withFields } from "./codec.js";
import { type ExternalSource, externalChunks, locateExternal } from "./external.js";
import { DataLocation, type TensorProto } from "./proto.js";
import { dataOf, isExternal } from "./tensor.js";

/** Pages, so that a reader can map a tensor into memory. */
const ALIGNMENT = 4096;
/** Windows maps only at multiples of 64 KiB; worth the gap from 1 MiB on, as in ONNX Runtime. */
const LARGE_ALIGNMENT = 65536;
const LARGE_BYTES = 2 ** 20;

interface Place {
  readonly offset: number;
  readonly length: number;
}

export class ExternalDataWriter {
  private position = 0;
  /** Tensors that share their bytes (tied weights) are written once. */
  private readonly places = new Map<string, Place>();
  private readonly buffers = new Map<ArrayBufferLike, number>();

  /**
   * @param write appends bytes to the data file.
   * @param location the data file's name, as the model will give it.
   * @param source where the tensors' present external data lies.
   */
  constructor(
    private readonly write: (bytes: Uint8Array) => Promise<void>,
    private readonly location: string,
    private readonly source: ExternalSource,
  ) {}

  /** Writes the bytes of a tensor and returns the tensor that points to them. External bytes are streamed. */
  async add(tensor: TensorProto): Promise<TensorProto> {
    const { offset, length } = isExternal(tensor) ? await this.copy(tensor) : await this.store(tensor);
    return pointing(tensor, this.location, offset, length);
  }

  private async copy(tensor: TensorProto): Promise<Place> {
    const range = await locateExternal(this.source, tensor);
    return this.place(`${range.file}:${range.offset}:${range.length}`, range.length, async () => {
      for await (const chunk of externalChunks(this.source, tensor)) await this.write(chunk);
    });
  }

  private store(tensor: TensorProto): Promise<Place> {
    const bytes = tensor.rawData?.length ? tensor.rawData : bytesOf(dataOf(tensor));
    const buffer = this.buffers.get(bytes.buffer) ?? this.buffers.size;
    this.buffers.set(bytes.buffer, buffer);
    return this.place(`${buffer}:${bytes.byteOffset}:${bytes.length}`, bytes.length, () => this.write(bytes));
  }

  private async place(key: string, length: number, write: () => Promise<void>): Promise<Place> {
    const known = this.places.get(key);
    if (known) return known;
    const alignment = length >= LARGE_BYTES ? LARGE_ALIGNMENT : ALIGNMENT;
    const offset = Math.ceil(this.position / alignment) * alignment;
    if (offset > this.position) await this.write(new Uint8Array(offset - this.position));
    await write();
    this.position = offset + length;
    const place = { offset, length };
    this.places.set(key, place);
    return place;
  }
}

function bytesOf(data: ArrayBufferView): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

const CONTENT_FIELDS = ["rawData", "floatData", "doubleData", "int32Data", "int64Data", "uint64Data"] as const;

function pointing(tensor: TensorProto, location: string, offset: number, length: number): TensorProto {
  const copy = withFields(tensor, {
    dataLocation: DataLocation.EXTERNAL,
    externalData: [
      { key: "location", value: location },
      { key: "offset", value: String(offset) },
      { key: "length", value: String(length) },
    ],
  });
  for (const field of CONTENT_FIELDS) delete copy[field];
  return copy;
}
