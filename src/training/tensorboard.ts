/**
 * TensorBoard's event files: TFRecords of Event messages (tensorflow/core/lib/io/record_writer.h, tensorboard's
 * event.proto and summary.proto), with the fields that scalars and histograms take. No maintained writer exists on npm.
 */
import { closeSync, openSync, writeSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import type { StepRecord } from "./metrics.js";

/** Bytes gathered before they are written, and how long they may wait (milliseconds). */
const MAX_PENDING = 2 ** 16;
const MAX_WAIT = 5000;

export class EventWriter {
  readonly path: string;
  private readonly file: number;
  // One array for all: many small ones that live for a while would grow the heap.
  private readonly pending = new Uint8Array(MAX_PENDING);
  private used = 0;
  private flushed = Date.now();

  /** @param firstStep of a run that goes on: TensorBoard forgets what older files of the folder say of it and later steps. */
  constructor(folder: string, firstStep?: number) {
    const time = Math.floor(Date.now() / 1000);
    this.path = join(folder, `events.out.tfevents.${time}.${hostname()}.${process.pid}`);
    this.file = openSync(this.path, "a");
    this.append(event(0, [bytesField(3, Buffer.from("brain.Event:2"))]));
    if (firstStep !== undefined) {
      // SessionLog, status START.
      this.append(event(firstStep, [messageField(7, [varintField(1, 1)])]));
    }
    this.flush();
  }

  /** Writes what a step's record holds. */
  write(record: StepRecord): void {
    const values = [
      ...scalarsOf(record).map(([tag, value]) => [bytesField(1, Buffer.from(tag)), floatField(2, value)]),
      ...Object.entries(record.block_diagnostics ?? {}).flatMap(([name, values]) => {
        const histogram = histogramOf(values);
        return histogram ? [[bytesField(1, Buffer.from(`diagnostics/${name}`)), messageField(5, histogram)]] : [];
      }),
    ];
    this.append(
      event(record.step, [
        messageField(
          5,
          values.map((value) => messageField(1, value)),
        ),
      ]),
    );
    if (Date.now() - this.flushed > MAX_WAIT) this.flush();
  }

  flush(): void {
    if (this.used > 0) writeSync(this.file, this.pending, 0, this.used);
    this.used = 0;
    this.flushed = Date.now();
  }

  close(): void {
    this.flush();
    closeSync(this.file);
  }

  private append(message: Uint8Array): void {
    const record = tfRecord(message);
    if (this.used + record.length > MAX_PENDING) this.flush();
    if (record.length > MAX_PENDING) writeSync(this.file, record);
    else {
      this.pending.set(record, this.used);
      this.used += record.length;
    }
  }
}

/** The scalars of a record, by TensorBoard's tags. */
function scalarsOf(record: StepRecord): [string, number][] {
  const heldOut = Object.entries(record).filter(([name]) => name.startsWith("held_out_")) as [string, number][];
  return [
    ["train/loss", record.loss],
    ["train/learning_rate", record.learning_rate],
    ["train/examples_per_second", record.examples_per_second],
    ...(record.epoch === undefined ? [] : ([["train/epoch", record.epoch]] as [string, number][])),
    ...Object.entries(record.diagnostics ?? {}).map(([name, value]): [string, number] => [
      `diagnostics/${name}`,
      value,
    ]),
    ...heldOut.map(([name, value]): [string, number] => [`held_out/${name.slice("held_out_".length)}`, value]),
  ];
}

/** Buckets in every decade, and the size below which a value counts as zero. */
const BUCKETS = 20;
const SMALLEST = 1e-30;

/**
 * A HistogramProto: buckets that grow geometrically, negative ones mirrored; values that are not finite are left out.
 * @returns undefined without finite values.
 */
function histogramOf(all: readonly number[]): Uint8Array[] | undefined {
  const values = all.filter(Number.isFinite).sort((a, b) => a - b);
  if (values.length === 0) return undefined;
  const limits: number[] = [];
  const counts: number[] = [];
  for (const value of values) {
    const [low, high] = bucketOf(value);
    if (limits.at(-1) !== high) {
      // A bucket begins where the one before ends, so that an empty one has to fill a gap.
      if (limits.at(-1) !== low) {
        limits.push(low);
        counts.push(0);
      }
      limits.push(high);
      counts.push(0);
    }
    counts[counts.length - 1] = (counts.at(-1) as number) + 1;
  }
  const sum = values.reduce((total, value) => total + value, 0);
  const squares = values.reduce((total, value) => total + value * value, 0);
  const moments = [values[0] as number, values.at(-1) as number, values.length, sum, squares];
  return [...moments.map((value, i) => doubleField(i + 1, value)), doublesField(6, limits), doublesField(7, counts)];
}

/** The ends of the bucket that holds a value. */
function bucketOf(value: number): [low: number, high: number] {
  const size = Math.abs(value);
  if (size < SMALLEST) return [-SMALLEST, SMALLEST];
  const exact = Math.log10(size) * BUCKETS;
  // A bucket holds its upper end, not its lower.
  const place = value > 0 ? Math.ceil(exact) : Math.floor(exact) + 1;
  const [near, far] = [10 ** ((place - 1) / BUCKETS), 10 ** (place / BUCKETS)];
  return value > 0 ? [near, far] : [-far, -near];
}

function event(step: number, fields: readonly Uint8Array[]): Uint8Array {
  return Buffer.concat([doubleField(1, Date.now() / 1000), varintField(2, step), ...fields]);
}

// Fields of protobuf's wire format (https://protobuf.dev/programming-guides/encoding).

function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  while (rest > 127) {
    bytes.push((rest % 128) + 128);
    rest = Math.floor(rest / 128);
  }
  return [...bytes, rest];
}

function varintField(field: number, value: number): Uint8Array {
  return Uint8Array.from([field * 8, ...varint(value)]);
}

function doubleField(field: number, value: number): Uint8Array {
  const bytes = Buffer.alloc(9);
  bytes[0] = field * 8 + 1;
  bytes.writeDoubleLE(value, 1);
  return bytes;
}

function floatField(field: number, value: number): Uint8Array {
  const bytes = Buffer.alloc(5);
  bytes[0] = field * 8 + 5;
  bytes.writeFloatLE(value, 1);
  return bytes;
}

function bytesField(field: number, content: Uint8Array): Uint8Array {
  return Buffer.concat([Uint8Array.from([field * 8 + 2, ...varint(content.length)]), content]);
}

function messageField(field: number, fields: readonly Uint8Array[]): Uint8Array {
  return bytesField(field, Buffer.concat(fields));
}

function doublesField(field: number, values: readonly number[]): Uint8Array {
  return bytesField(field, new Uint8Array(Float64Array.from(values).buffer));
}

/** Length, checksum of the length, message, checksum of the message. */
function tfRecord(message: Uint8Array): Uint8Array {
  const header = Buffer.alloc(12);
  header.writeBigUInt64LE(BigInt(message.length));
  header.writeUInt32LE(maskedCrc32c(header.subarray(0, 8)), 8);
  const footer = Buffer.alloc(4);
  footer.writeUInt32LE(maskedCrc32c(message));
  return Buffer.concat([header, message, footer]);
}

/** CRC-32C (Castagnoli) as TFRecords store it. */
export function maskedCrc32c(bytes: Uint8Array): number {
  const crc = crc32c(bytes);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc >>> 0;
});

export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (CRC_TABLE[(crc ^ byte) & 255] as number) ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}
