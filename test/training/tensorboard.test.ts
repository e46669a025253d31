import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import protobuf from "protobufjs";
import { describe, expect, test } from "vitest";
import type { ParameterSpec } from "../../src/optimizers/optimizer.js";
import { listCheckpoints } from "../../src/training/checkpoint.js";
import { readMetrics } from "../../src/training/metrics.js";
import { parseRunOptions, type RunOptions } from "../../src/training/options.js";
import { runTraining } from "../../src/training/run.js";
import { RunDirectory } from "../../src/training/run-directory.js";
import { crc32c, EventWriter, maskedCrc32c } from "../../src/training/tensorboard.js";
import { clusters, countingOptimizer, handMadeProgram, temporaryFolder } from "./support.js";

const folder = temporaryFolder();

/** The messages of TensorBoard's event.proto and summary.proto that are used. */
const { root } = protobuf.parse(`
syntax = "proto3";
message SessionLog { int32 status = 1; }
message HistogramProto {
  double min = 1; double max = 2; double num = 3; double sum = 4; double sum_squares = 5;
  repeated double bucket_limit = 6 [packed = true]; repeated double bucket = 7 [packed = true];
}
message Value { string tag = 1; optional float simple_value = 2; HistogramProto histo = 5; }
message Summary { repeated Value value = 1; }
message Event { double wall_time = 1; int64 step = 2; optional string file_version = 3; Summary summary = 5; SessionLog session_log = 7; }
`);
const Event = root.lookupType("Event");

interface Histogram {
  readonly num: number;
  readonly bucketLimit: number[];
  readonly bucket: number[];
}

interface DecodedEvent {
  readonly step: number;
  readonly fileVersion?: string;
  readonly summary?: {
    readonly value?: { tag: string; simpleValue?: number; histo?: Record<string, number & number[]> }[];
  };
  readonly sessionLog?: { readonly status: number };
}

/** The events of a file; the checksums are checked bit by bit, without a table. */
function readEvents(path: string): DecodedEvent[] {
  const bytes = readFileSync(path);
  const events: DecodedEvent[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = Number(bytes.readBigUInt64LE(at));
    expect(bytes.readUInt32LE(at + 8)).toBe(masked(bitwiseCrc(bytes.subarray(at, at + 8))));
    const message = bytes.subarray(at + 12, at + 12 + length);
    expect(bytes.readUInt32LE(at + 12 + length)).toBe(masked(bitwiseCrc(message)));
    events.push(Event.toObject(Event.decode(message), { longs: Number }) as DecodedEvent);
    at += 16 + length;
  }
  return events;
}

/** Division by the Castagnoli polynomial, a bit at a time. */
function bitwiseCrc(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let i = 0; i < 8; i++) crc = (crc >>> 1) ^ (0x82f63b78 & -(crc & 1));
  }
  return ~crc >>> 0;
}

const masked = (crc: number) =>
  Number((BigInt((crc >>> 15) | 0) + BigInt((crc << 17) >>> 0) + 0xa282ead8n) & 0xffffffffn);

const eventFiles = (path: string) => readdirSync(path).filter((name) => name.startsWith("events.out.tfevents."));

describe("TensorBoard's event files", () => {
  // The check value of CRC-32C (Williams, "A painless guide to CRC error detection algorithms"; RFC 3720, B.4, for zeros).
  test("the checksum has its published values", () => {
    expect(crc32c(Buffer.from("123456789"))).toBe(0xe3069283);
    expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
    expect(maskedCrc32c(Buffer.from("123456789"))).toBe(masked(0xe3069283));
  });

  test("hold the scalars and histograms of every step, and begin anew after a resumed step", async () => {
    const program = handMadeProgram(6, 8, 4);
    const data = clusters(70, 6, 4);
    const options: RunOptions = {
      steps: 8,
      batchSize: 16,
      heldOut: 6,
      evaluateEvery: 4,
      checkpointEvery: 4,
      tensorboard: true,
    };
    const directory = new RunDirectory(join(folder, "run"));
    await directory.create({ fishy: "test", model: null, rewrite: {}, run: options }, program, undefined);
    const optimizer = (parameters: readonly ParameterSpec[]) => countingOptimizer(parameters);
    const setup = { program, data, directory, options: parseRunOptions(options), optimizer };
    await runTraining(setup);
    const records = readMetrics(directory.metricsFile);
    const [file] = eventFiles(directory.path);
    const [head, ...events] = readEvents(join(directory.path, file as string));
    expect(head).toMatchObject({ fileVersion: "brain.Event:2" });
    expect(events.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    const values = (step: number) => new Map(events[step - 1]?.summary?.value?.map((value) => [value.tag, value]));
    for (const record of records) {
      const seen = values(record.step);
      expect(seen.get("train/loss")?.simpleValue).toBe(Math.fround(record.loss));
      expect(seen.get("train/learning_rate")?.simpleValue).toBe(Math.fround(record.learning_rate));
      expect(seen.get("held_out/loss")?.simpleValue).toBe(
        record.held_out_loss === undefined ? undefined : Math.fround(record.held_out_loss),
      );
      expect(seen.get("diagnostics/root")?.simpleValue).toBe(record.diagnostics?.root);
      const [low, high] = record.block_diagnostics?.roots ?? [];
      const { histo } = seen.get("diagnostics/roots") ?? {};
      expect(histo === undefined).toBe(low === undefined);
      if (low === undefined || high === undefined) continue;
      expect(histo).toMatchObject({ min: low, max: high, num: 2, sum: low + high, sumSquares: low ** 2 + high ** 2 });
    }

    const from = listCheckpoints(directory.path)[0];
    await runTraining({ ...setup, from });
    const files = eventFiles(directory.path);
    // A second may not have passed: the same file then goes on.
    const all = readEvents(join(directory.path, files.at(-1) as string));
    const start = all.findIndex(({ sessionLog }) => sessionLog?.status === 1);
    expect(all[start]?.step).toBe(5);
    expect(all.slice(start + 1).map(({ step }) => step)).toEqual([5, 6, 7, 8]);
  });

  test("histograms count every finite value in its bucket", () => {
    const values = [-3, -0.01, 0, 1e-8, 0.5, 0.5, 2, Number.NaN, Number.POSITIVE_INFINITY];
    const writer = new EventWriter(folder);
    writer.write({
      ...{ step: 300_000, examples: 1, loss: 1, learning_rate: 1, seconds: 1, examples_per_second: 1 },
      block_diagnostics: { some: values, none: [Number.NaN] },
    });
    writer.close();
    const [, event] = readEvents(writer.path);
    expect(event?.step).toBe(300_000);
    const histograms = event?.summary?.value?.filter(({ histo }) => histo) ?? [];
    expect(histograms.map(({ tag }) => tag)).toEqual(["diagnostics/some"]);
    const histogram = histograms[0]?.histo as unknown as Histogram | undefined;
    const { bucketLimit: limits, bucket: counts, num } = histogram ?? { bucketLimit: [], bucket: [], num: 0 };
    expect(num).toBe(7);
    expect([...limits]).toEqual([...limits].sort((a, b) => a - b));
    const finite = values.filter(Number.isFinite);
    for (const [i, count] of counts.entries()) {
      const [low, high] = [i === 0 ? Number.NEGATIVE_INFINITY : (limits[i - 1] as number), limits[i] as number];
      expect(finite.filter((value) => value > low && value <= high)).toHaveLength(count);
      // No bucket with something in it is wider than a twentieth of a decade, but for that around zero.
      if (count > 0 && high !== 1e-30) expect(Math.abs(Math.log10(high / low))).toBeCloseTo(1 / 20, 9);
    }
  });
});
