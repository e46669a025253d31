/** The graph that tells whether a device computes rightly, exactly and how fast. */
import { FishyError } from "../errors.js";
import { emptyGraph, GraphBuilder } from "../onnx/builder.js";
import { DataType, type ModelProto } from "../onnx/proto.js";
import { type Device, formatDevice } from "./devices.js";
import { loadRuntime, tensorOver } from "./ort.js";
import { createSession } from "./session.js";

export interface ProbeOutcome {
  readonly gigaflops: number;
  readonly isExact: boolean;
}

const SIZE = 512;
/** Past the 10 bits of TF32, within the 23 of float32. */
const FINE = 2 ** -12;
/** Enough for a GPU to wake up; a slow device is not asked for more. */
const RUNS = 10;
const ENOUGH_MS = 500;

/** relu(x·y + 1), x and y [512, 512]. */
function probeModel(): ModelProto {
  const b = new GraphBuilder(emptyGraph("probe"));
  const type = { elemType: DataType.FLOAT, shape: [SIZE, SIZE] };
  const product = b.matMul(b.input("x", type), b.input("y", type));
  b.alias(b.op("Relu", [b.add(product, b.f32(1))]), "z");
  b.output("z", type);
  return {
    ...{ irVersion: 8, producerName: "fishy", graph: b.graph },
    ...{ opsetImport: [{ domain: "", version: 18 }], metadataProps: [], trainingInfo: [], functions: [] },
  };
}

/**
 * Runs the probe in this process.
 * @throws FishyError when the device cannot be used, leaves a node to the CPU, or computes wrongly.
 */
export async function runProbe(device: Device): Promise<ProbeOutcome> {
  const ort = await loadRuntime();
  const session = await createSession(probeModel(), {
    device,
    purpose: `the probe of ${formatDevice(device)}`,
    ...(device.kind !== "cpu" && { extra: { session: { disable_cpu_ep_fallback: "1" } } }),
  });
  try {
    const [x, y, z] = [0, 1, 2].map(() => new Float32Array(SIZE * SIZE)) as [Float32Array, Float32Array, Float32Array];
    const tensor = (data: Float32Array, name: string) => tensorOver(ort, DataType.FLOAT, [SIZE, SIZE], data, name);
    const feeds = { x: tensor(x, "x"), y: tensor(y, "y") };
    const fetches = { z: tensor(z, "z") };

    // Small integers, so that every device must get the same numbers.
    for (let i = 0; i < SIZE; i++) {
      for (let j = 0; j < SIZE; j++) {
        x[i * SIZE + j] = ((i + 3 * j) % 7) - 3;
        y[i * SIZE + j] = ((5 * i + j) % 5) - 2;
      }
    }
    await session.run(feeds, fetches);
    for (const [i, j] of [
      [0, 0],
      [1, SIZE - 1],
      [SIZE - 1, 2],
      [200, 301],
    ] as const) {
      let sum = 1;
      for (let k = 0; k < SIZE; k++) sum += (x[i * SIZE + k] as number) * (y[k * SIZE + j] as number);
      const value = z[i * SIZE + j];
      if (value !== Math.max(0, sum)) {
        throw new FishyError(`${formatDevice(device)} computes wrongly: ${value} instead of ${Math.max(0, sum)}.`);
      }
    }

    // Every partial sum is exact in float32.
    x.fill(1 + FINE);
    y.fill(1);
    await session.run(feeds, fetches);
    const isExact = z.every((value) => value === 1 + SIZE * (1 + FINE));

    let fastest = Number.POSITIVE_INFINITY;
    const end = performance.now() + ENOUGH_MS;
    for (let run = 0; run < RUNS && performance.now() < end; run++) {
      const start = performance.now();
      await session.run(feeds, fetches);
      fastest = Math.min(fastest, performance.now() - start);
    }
    return { isExact, gigaflops: (2 * SIZE ** 3) / (fastest * 1e6) };
  } finally {
    await session.release();
  }
}
