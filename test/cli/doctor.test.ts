/** `fishy doctor`, on this machine and on others that are made up. */
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it, vi } from "vitest";
import { formatMachine } from "../../src/cli/doctor.js";
import { installCuda } from "../../src/runtime/install-cuda.js";
import { examineMachine, missingLibraries } from "../../src/runtime/machine.js";
import type { DeviceProbe, Prober } from "../../src/runtime/probe.js";
import { fishy } from "../support/cli.js";

const { dependencies } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
const folder = mkdtempSync(join(tmpdir(), "fishy-doctor-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Devices as a machine with one GPU, whose CUDA lacks a library, would have them. */
const probe: Prober = async (device) => {
  const found: Omit<DeviceProbe, "device"> =
    device.kind === "cuda"
      ? {
          name: "cuda",
          available: false,
          missing: ["the library libcudnn.so.9 cannot be loaded"],
          remedies: ["Install it."],
        }
      : {
          name: device.kind,
          available: true,
          gigaflops: 1234.5,
          isExact: device.kind === "cpu",
          missing: [],
          remedies: [],
        };
  return { device, ...found };
};

describe("fishy doctor", () => {
  it("examines this machine and succeeds with the CPU alone", async () => {
    const { code, stdout, stderr } = await fishy("doctor", "--json");
    expect(stderr).toBe("");
    expect(code).toBe(0);
    const found = JSON.parse(stdout);
    expect(found).toMatchObject({
      ...{ node: process.versions.node, platform: process.platform, arch: process.arch },
      runtime: { version: dependencies["onnxruntime-node"], telemetry: false, error: null },
    });
    expect(found.fishy).toMatch(/^\d+\.\d+\.\d+/);
    expect(found.runtime.providers).toContain("cpu");
    expect(found.cores).toBeGreaterThanOrEqual(1);
    expect(found.memory.usable).toBeGreaterThan(2 ** 28);
    const devices = new Map<string, DeviceProbe>(found.devices.map((device: DeviceProbe) => [device.name, device]));
    expect([...devices.keys()]).toEqual(["cuda", "webgpu", "cpu"]);
    expect(devices.get("cpu")).toMatchObject({ available: true, isExact: true });
    for (const { available, missing, remedies } of devices.values()) {
      if (!available) expect(missing.length * remedies.length).toBeGreaterThan(0);
    }
  });

  it("tells what works, and for the rest what is missing and how to get it", async () => {
    const text = formatMachine("1.2.3", await examineMachine(probe));
    expect(text).toMatch(/^fishy {13}1\.2\.3\nNode {14}\d+/);
    expect(text).toMatch(/^cuda {4}no$/m);
    expect(text).toMatch(/^webgpu {2}yes {4}1230 GFLOP\/s {2}rounded to TF32$/m);
    expect(text).toMatch(/^cpu {5}yes .* exact$/m);
    expect(text).toMatch(/For cuda:\n {2}– the library libcudnn\.so\.9 cannot be loaded\n {2}→ Install it\.$/);
  });

  it("reads every library that ldd misses", () => {
    const ldd = `\tlinux-vdso.so.1 (0x00007ffd)
\tlibcublasLt.so.12 => not found
\tlibcudnn.so.9 => not found
\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f)
`;
    expect(missingLibraries(ldd)).toEqual(["libcublasLt.so.12", "libcudnn.so.9"]);
    expect(missingLibraries("\tstatically linked\n")).toEqual([]);
  });
});

describe("--install-cuda", () => {
  const script = join(folder, "install.cjs");
  const platform = "linux-x64";

  it("runs the installer although npm was told to skip it, its output on stderr", async () => {
    writeFileSync(
      script,
      "console.log('installing', process.env.ONNXRUNTIME_NODE_INSTALL, process.env.npm_config_onnxruntime_node_install);",
    );
    chmodSync(script, 0o644);
    vi.stubEnv("npm_config_onnxruntime_node_install", "skip");
    const lines: string[] = [];
    const spy = vi.spyOn(process.stderr, "write").mockImplementation((chunk) => lines.push(String(chunk)) > 0);
    try {
      await installCuda({ script, platform });
    } finally {
      spy.mockRestore();
      vi.unstubAllEnvs();
    }
    expect(lines.join("")).toBe("installing cuda12 skip\n");
  });

  it("tells when the installer fails, and where CUDA is not to be had", async () => {
    writeFileSync(script, "process.exit(3);");
    await expect(installCuda({ script, platform })).rejects.toThrow(/ended with 3.*api\.nuget\.org.*proxy/);
    await expect(installCuda({ script: join(folder, "none.js"), platform })).rejects.toThrow(/no installer/);
    await expect(installCuda({ script, platform: "darwin-arm64" })).rejects.toMatchObject({
      message: expect.stringMatching(/linux-x64 only, and this is darwin-arm64/),
      exitCode: 2,
    });
  });
});
