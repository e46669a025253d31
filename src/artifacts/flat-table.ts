/**
 * Reading FlatBuffers that may be damaged. The generated accessors of `flatbuffers` trust their input: past the end
 * they read zeros. Every access here is checked, as the C++ `Verifier` does
 * (https://flatbuffers.dev/internals/, "Encoding example" and "Tables").
 */
import { ByteBuffer } from "flatbuffers";

/** What is wrong with the bytes; completes the sentence "… is damaged: …". */
export class DamagedBuffer extends Error {}

/** The C++ verifier's own limit: a small file must not describe an endless one. */
const MAX_TABLES = 1_000_000;

const SIZE_OF_OFFSET = 4;
const SIZE_OF_VTABLE_ENTRY = 2;
/** Size of the vtable and size of the table stand before the entries. */
const VTABLE_HEADER = 2 * SIZE_OF_VTABLE_ENTRY;

/** The bytes of one buffer, and how many tables have been opened in it. */
class Source {
  readonly buffer: ByteBuffer;
  private tables = 0;
  private readonly decoder = new TextDecoder("utf-8", { fatal: true });

  constructor(readonly bytes: Uint8Array) {
    this.buffer = new ByteBuffer(bytes);
  }

  /** Checks that `length` bytes from `position` on lie in the buffer. */
  check(position: number, length: number, what: string): number {
    if (!(position >= 0 && length >= 0 && position + length <= this.bytes.length)) {
      throw new DamagedBuffer(`${what} lies at bytes ${position} to ${position + length} of ${this.bytes.length}`);
    }
    return position;
  }

  /** Follows the offset at `position`. Offsets are unsigned and point forwards. */
  follow(position: number, what: string): number {
    const offset = this.buffer.readUint32(this.check(position, SIZE_OF_OFFSET, what));
    if (offset === 0) throw new DamagedBuffer(`the offset of ${what} is zero`);
    return position + offset;
  }

  countTable(): void {
    if (++this.tables > MAX_TABLES) throw new DamagedBuffer(`it has more than ${MAX_TABLES} tables`);
  }

  text(bytes: Uint8Array, what: string): string {
    try {
      return this.decoder.decode(bytes);
    } catch {
      throw new DamagedBuffer(`${what} is not UTF-8`);
    }
  }
}

/** One table. Fields are named by their number in the schema; a field that is absent has its default. */
export class FlatTable {
  private readonly vtable: number;
  private readonly vtableSize: number;
  private readonly size: number;

  private constructor(
    private readonly source: Source,
    private readonly position: number,
    /** Says which table it is in an error. */
    readonly what: string,
  ) {
    source.countTable();
    source.check(position, SIZE_OF_OFFSET, what);
    this.vtable = source.check(position - source.buffer.readInt32(position), VTABLE_HEADER, `the layout of ${what}`);
    this.vtableSize = source.buffer.readUint16(this.vtable);
    this.size = source.buffer.readUint16(this.vtable + SIZE_OF_VTABLE_ENTRY);
    if (this.vtableSize < VTABLE_HEADER || this.vtableSize % SIZE_OF_VTABLE_ENTRY !== 0) {
      throw new DamagedBuffer(`the layout of ${what} has ${this.vtableSize} bytes`);
    }
    source.check(this.vtable, this.vtableSize, `the layout of ${what}`);
    source.check(position, this.size, what);
  }

  /**
   * The root table of a buffer with the file identifier `identifier`.
   * @throws DamagedBuffer when the identifier is another one.
   */
  static root(bytes: Uint8Array, identifier: string, what: string): FlatTable {
    const source = new Source(bytes);
    source.check(0, SIZE_OF_OFFSET + identifier.length, "its header");
    const found = String.fromCharCode(...bytes.subarray(SIZE_OF_OFFSET, SIZE_OF_OFFSET + identifier.length));
    if (found !== identifier) {
      throw new DamagedBuffer(`its identifier is ${JSON.stringify(found)} instead of "${identifier}"`);
    }
    return new FlatTable(source, source.follow(0, what), what);
  }

  int32(field: number, fallback: number): number {
    const at = this.scalar(field, 4);
    return at === undefined ? fallback : this.source.buffer.readInt32(at);
  }

  int64(field: number, fallback: bigint): bigint {
    const at = this.scalar(field, 8);
    return at === undefined ? fallback : this.source.buffer.readInt64(at);
  }

  float32(field: number, fallback: number): number {
    const at = this.scalar(field, 4);
    return at === undefined ? fallback : this.source.buffer.readFloat32(at);
  }

  boolean(field: number): boolean {
    const at = this.scalar(field, 1);
    if (at === undefined) return false;
    const value = this.source.buffer.readUint8(at);
    if (value > 1) throw new DamagedBuffer(`a flag of ${this.what} is ${value}`);
    return value === 1;
  }

  string(field: number): string | undefined {
    const what = `a text of ${this.what}`;
    const bytes = this.vector(field, 1, what);
    return bytes && this.source.text(this.slice(bytes, 1), what);
  }

  /** A view of the bytes, not a copy. */
  bytes(field: number): Uint8Array | undefined {
    const vector = this.vector(field, 1, `the data of ${this.what}`);
    return vector && this.slice(vector, 1);
  }

  int64s(field: number): bigint[] {
    const vector = this.vector(field, 8, `a list of ${this.what}`);
    if (!vector) return [];
    return Array.from({ length: vector.count }, (_, i) => this.source.buffer.readInt64(vector.start + 8 * i));
  }

  table(field: number, what: string): FlatTable | undefined {
    const at = this.scalar(field, SIZE_OF_OFFSET);
    return at === undefined ? undefined : new FlatTable(this.source, this.source.follow(at, what), what);
  }

  tables(field: number, what: string): FlatTable[] {
    const vector = this.vector(field, SIZE_OF_OFFSET, `the list of each ${what}`);
    if (!vector) return [];
    return Array.from({ length: vector.count }, (_, i) => {
      const name = `${what} ${i}`;
      return new FlatTable(this.source, this.source.follow(vector.start + SIZE_OF_OFFSET * i, name), name);
    });
  }

  /** Whether the field is there at all. */
  has(field: number): boolean {
    return this.offsetOf(field) !== 0;
  }

  private offsetOf(field: number): number {
    const entry = VTABLE_HEADER + SIZE_OF_VTABLE_ENTRY * field;
    return entry < this.vtableSize ? this.source.buffer.readUint16(this.vtable + entry) : 0;
  }

  private scalar(field: number, size: number): number | undefined {
    const offset = this.offsetOf(field);
    if (offset === 0) return undefined;
    if (offset < SIZE_OF_OFFSET || offset + size > this.size) {
      throw new DamagedBuffer(`a field of ${this.what} lies outside it`);
    }
    return this.source.check(this.position + offset, size, this.what);
  }

  private vector(field: number, elementSize: number, what: string): { start: number; count: number } | undefined {
    const at = this.scalar(field, SIZE_OF_OFFSET);
    if (at === undefined) return undefined;
    const position = this.source.follow(at, what);
    const count = this.source.buffer.readUint32(this.source.check(position, SIZE_OF_OFFSET, what));
    return { start: this.source.check(position + SIZE_OF_OFFSET, count * elementSize, what), count };
  }

  private slice({ start, count }: { start: number; count: number }, elementSize: number): Uint8Array {
    return this.source.bytes.subarray(start, start + count * elementSize);
  }
}
