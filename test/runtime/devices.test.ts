import { existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { describe, expect, test, vi } from "vitest";
import { AUTO_ORDER, type Device, executionProviders, formatDevice, parseDevice } from "../../src/runtime/devices.js";
import { chooseDevice, type DeviceProbe, explain, probeDevice, providerFolder } from "../../src/runtime/probe.js";

const SOFTWARE_VULKAN = "/usr/lib/chromium/vk_swiftshader_icd.json";
const register = pathToFileURL(join(import.meta.dirname, "../support/register-typescript.mjs"));

/** Probes a device in a process that runs the sources, with other variables. */
async function probeWith(device: Device, variables: Record<string, string>): Promise<DeviceProbe> {
  vi.stubEnv("NODE_OPTIONS", `--import ${register}`);
  for (const [name, value] of Object.entries(variables)) vi.stubEnv(name, value);
  try {
    return await probeDevice(device);
  } finally {
    vi.unstubAllEnvs();
  }
}

/** A machine on which the named devices work, with their speed. */
function machine(speeds: Record<string, number>) {
  const asked: string[] = [];
  const probe = async (device: Device): Promise<DeviceProbe> => {
    const name = formatDevice(device);
    asked.push(name);
    const gigaflops = speeds[name];
    const base = { device, name, missing: [], remedies: [] };
    return gigaflops === undefined
      ? { ...base, available: false, missing: [`no ${name} here`], remedies: ["Buy one."] }
      : { ...base, available: true, gigaflops, isExact: true };
  };
  return { asked, probe };
}

describe("names of devices", () => {
  test.each(["cpu", "cuda", "cuda:3", "webgpu"])("%s is read and written", (text) => {
    expect(formatDevice(parseDevice(text) as Device)).toBe(text);
  });

  test("cuda:0 is cuda; auto stays a request", () => {
    expect(formatDevice(parseDevice("cuda:0") as Device)).toBe("cuda");
    expect(parseDevice("auto")).toBe("auto");
  });

  test.each(["gpu", "cuda:", "cuda:-1", "cuda:x", "cpu:1", "webgpu:0", "CUDA", ""])("%j is refused", (text) => {
    expect(() => parseDevice(text)).toThrow(/is no device\. There are cpu, cuda, cuda:N, webgpu or auto/);
  });

  test("CUDA's provider is told the number of the card", () => {
    expect(executionProviders({ kind: "cuda", index: 2 })).toEqual([{ name: "cuda", deviceId: 2 }]);
    expect(executionProviders({ kind: "webgpu", index: 0 })).toEqual(["webgpu"]);
  });
});

describe("the choice of a device", () => {
  test("auto takes CUDA where it works, and looks no further", async () => {
    const { asked, probe } = machine({ cuda: 1000, webgpu: 2000, cpu: 50 });
    expect((await chooseDevice("auto", probe)).device).toEqual({ kind: "cuda", index: 0 });
    expect(asked).toEqual(["cuda"]);
  });

  test("auto says what it passed over", async () => {
    const { device, why } = await chooseDevice("auto", machine({ webgpu: 500, cpu: 50 }).probe);
    expect(device.kind).toBe("webgpu");
    expect(why).toBe("webgpu, the first that works (cuda: no cuda here)");
  });

  test("auto leaves a WebGPU that is slower than the CPU", async () => {
    const { device, why } = await chooseDevice("auto", machine({ webgpu: 2, cpu: 50 }).probe);
    expect(device.kind).toBe("cpu");
    expect(why).toMatch(/webgpu: slower than the CPU/);
  });

  test("a device that was asked for is taken or refused, with what is missing and the remedy", async () => {
    const { probe } = machine({ "cuda:1": 1000 });
    expect((await chooseDevice({ kind: "cuda", index: 1 }, probe)).device.index).toBe(1);
    const refused = chooseDevice({ kind: "cuda", index: 0 }, probe);
    await expect(refused).rejects.toThrow("The device cuda cannot be used: no cuda here. Buy one.");
    await expect(refused).rejects.toMatchObject({ exitCode: 1 });
  });

  test("the CPU needs no probe", async () => {
    const { asked, probe } = machine({});
    expect((await chooseDevice(parseDevice("cpu"), probe)).device.kind).toBe("cpu");
    expect(asked).toEqual([]);
  });
});

describe("what a probe that failed says", () => {
  const cuda = { kind: "cuda", index: 3 } as const;
  test.each([
    // As ONNX Runtime 1.30 writes them.
    [
      "Failed to load library x.so with error: libcublasLt.so.13: cannot open shared object file: No such",
      /libcublasLt.so.13 cannot be loaded/,
      /CUDA 13 with cuDNN 9/,
    ],
    [
      "Failed to load library x.so with error: libcudnn.so.9: cannot open shared object file: No such",
      /libcudnn.so.9/,
      /CUDA with cuDNN 9/,
    ],
    ["error: libcuda.so.1: cannot open shared object file: No such file", /libcuda.so.1/, /nvidia-smi/],
    [
      "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version ; GPU=-1",
      /driver is older/,
      /newer driver/,
    ],
    ["CUDA failure 101: invalid device ordinal ; GPU=3", /no GPU number 3/, /nvidia-smi/],
    ["something new", /the probe failed: something new/, /fishy doctor/],
  ])("%s", (message, missing, remedy) => {
    const problem = explain(cuda, message);
    expect(problem.missing).toMatch(missing);
    expect(problem.remedy).toMatch(remedy);
  });
});

describe("probes", () => {
  test("the CPU computes rightly, with whole float32 products", async () => {
    const { available, isExact, gigaflops } = await probeDevice(AUTO_ORDER.at(-1) as Device);
    expect({ available, isExact }).toEqual({ available: true, isExact: true });
    expect(gigaflops).toBeGreaterThan(0.1);
  });

  test.runIf(process.platform === "linux" && !existsSync("/dev/nvidiactl") && !existsSync("/dev/dxg"))(
    "CUDA without a card says so, and how to get it",
    async () => {
      const { available, missing, remedies } = await probeDevice({ kind: "cuda", index: 0 });
      expect(available).toBe(false);
      expect(missing[0]).toMatch(/no NVIDIA GPU/);
      expect(remedies[0]).toMatch(/nvidia-smi/);
      expect(existsSync(providerFolder())).toBe(true);
    },
  );

  test.runIf(process.platform === "linux")("WebGPU without a driver says so", async () => {
    const { available, missing, remedies } = await probeWith(
      { kind: "webgpu", index: 0 },
      { VK_ICD_FILENAMES: "/nonexistent/driver.json", VK_DRIVER_FILES: "/nonexistent/driver.json" },
    );
    expect(available).toBe(false);
    expect(missing).toEqual(["WebGPU finds no adapter: a Vulkan driver for a GPU is needed"]);
    expect(remedies[0]).toMatch(/vulkaninfo/);
  });

  test.runIf(existsSync(SOFTWARE_VULKAN))("WebGPU on a driver in software computes rightly", async () => {
    const { available, isExact } = await probeWith(
      { kind: "webgpu", index: 0 },
      { VK_ICD_FILENAMES: SOFTWARE_VULKAN, XDG_RUNTIME_DIR: tmpdir() },
    );
    expect({ available, isExact }).toEqual({ available: true, isExact: true });
  });
});
