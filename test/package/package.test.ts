/** What `npm pack` ships: complete, nothing beside it, and at work in an empty project as ESM with types. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { builtinModules } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { pseudoRandom } from "../support/mlp.js";
import { npyBytes } from "../support/npy.js";
import { GRAPHS } from "../support/shared.js";
import { installTarball, mustRun, PACKAGE, pack, ROOT, runCommand } from "./support.js";

const folder = mkdtempSync(join(tmpdir(), "fishy-package-"));
const project = join(folder, "project");
const installed = join(project, "node_modules", PACKAGE.name);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let packed: ReturnType<typeof pack>;
beforeAll(() => {
  packed = pack(folder);
  installTarball(packed.tarball, project);
});

const node = (...args: string[]) => runCommand(process.execPath, args, project);
const tool = (...path: string[]) => join(ROOT, "node_modules", ...path);

describe("the tarball", () => {
  it("holds the compiled package, and what it reads and starts at run time", () => {
    const needed = ["dist/index.js", "dist/index.d.ts", "dist/cli/main.js", "dist/report/assets/report.js"];
    const processes = ["dist/training/child.js", "dist/data/prefetch-worker.js"];
    expect(packed.paths).toEqual(expect.arrayContaining([...needed, ...processes, "LICENSE", "NOTICE", "README.md"]));
  });

  it("holds nothing else", () => {
    const allowed = /^(dist\/.+\.(js|d\.ts|css)|package\.json|LICENSE|NOTICE|README\.md|CHANGELOG\.md)$/;
    expect(packed.paths.filter((path) => !allowed.test(path))).toEqual([]);
  });

  it("imports what it declares, and declares what it imports", () => {
    const files = readdirSync(join(installed, "dist"), { recursive: true, encoding: "utf8" });
    const imported = new Set<string>();
    for (const file of files.filter((name) => /\.(js|d\.ts)$/.test(name) && !name.includes("assets"))) {
      const text = readFileSync(join(installed, "dist", file), "utf8");
      const code = /(?:(?:from |import\(|import )"|resolve\(["`])([\w@][\w@:/.-]*)/g;
      for (const [, specifier = ""] of text.matchAll(code)) {
        const parts = specifier.split("/");
        imported.add(specifier.startsWith("@") ? parts.slice(0, 2).join("/") : (parts[0] as string));
      }
    }
    const foreign = [...imported].filter((name) => !name.startsWith("node:") && !builtinModules.includes(name));
    expect(foreign.sort()).toEqual(Object.keys(PACKAGE.dependencies).sort());
  });

  it("has no fault that publint or attw knows", () => {
    expect(runCommand(process.execPath, [tool("publint", "src", "cli.js"), packed.stage, "--strict"], ROOT)).toEqual({
      code: 0,
      stdout: expect.stringMatching(/All good!/),
      stderr: expect.any(String),
    });
    const attw = [tool("@arethetypeswrong", "cli", "dist", "index.js"), packed.tarball, "--profile", "esm-only"];
    expect(runCommand(process.execPath, attw, ROOT)).toMatchObject({ code: 0 });
  });
});

describe("in an empty project", () => {
  const [examples, features, classes] = [48, 20, 5];
  const model = join(GRAPHS, "pytorch/mlp_tanh/model.onnx");
  beforeAll(() => {
    writeFileSync(
      join(project, "x.npy"),
      npyBytes("<f4", [examples, features], Float32Array.from(pseudoRandom(5, examples * features))),
    );
    const labels = BigInt64Array.from({ length: examples }, (_, i) => BigInt(i % classes));
    writeFileSync(join(project, "labels.npy"), npyBytes("<i8", [examples], labels));
  });

  it("its types hold in a strict program, which then trains", () => {
    writeFileSync(
      join(project, "main.ts"),
      `import { FishyError, exportModel, inspectModel, loadModel, type OptimizerOptions, rewrite, train, type TrainResult } from "fishy";

const model = process.argv[2] as string;
const source = await loadModel(model);
const { layers } = await inspectModel(source.proto, { loss: "softmax-cross-entropy" });
const { manifest } = await rewrite(source.proto, { loss: "softmax-cross-entropy" });
const optimizer: OptimizerOptions = { name: "fishy", learningRate: 0.01 };
// @ts-expect-error: no such loss
const refused = await rewrite(source.proto, { loss: "softmax" }).catch((error: unknown) => error);
if (!(refused instanceof FishyError)) throw new Error("a loss that does not exist must be refused");
const result: TrainResult = await train({
  model,
  rewrite: { loss: "softmax-cross-entropy" },
  data: ["x=x.npy", "labels=labels.npy"],
  optimizer,
  steps: 3,
  batchSize: 16,
  outDir: "run",
  prefetch: 2,
});
const { path } = await exportModel("run", "trained.onnx");
console.log(JSON.stringify({ layers: layers.length, sections: manifest.sections.length, steps: result.steps, path }));
`,
    );
    const options = ["--strict", "--target", "es2022", "--module", "nodenext", "--types", "node"];
    const tsc = node(tool("typescript", "bin", "tsc"), "main.ts", ...options);
    expect(tsc.stdout).toBe("");
    expect(tsc.code).toBe(0);
    const { code, stdout, stderr } = node("main.js", model);
    expect(stderr).toBe("");
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toEqual({ layers: 3, sections: 3, steps: 3, path: "trained.onnx" });
  });

  it("its command works", () => {
    const bin = join(installed, PACKAGE.bin.fishy as string);
    expect(node(bin, "--version").stdout.trim()).toBe(PACKAGE.version);
    const data = ["--data", "x=x.npy", "labels.npy", "--loss", "softmax-cross-entropy", "--steps", "2"];
    const options = ["--optimizer", "adam", "--batch-size", "16", "--out", "cli-run", "--quiet", "--json"];
    const { code, stdout, stderr } = node(bin, "train", model, ...data, ...options);
    expect(stderr).toBe("");
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ steps: 2, outcome: "completed" });
    expect(node(bin, "train", "missing.onnx", ...data, ...options).code).toBe(1);
    expect(node(bin, "train", "--wrong").code).toBe(2);
  });

  it("CommonJS reaches it by import()", () => {
    writeFileSync(join(project, "main.cjs"), 'import("fishy").then((fishy) => console.log(typeof fishy.train));\n');
    expect(mustRun(process.execPath, ["main.cjs"], project).trim()).toBe("function");
  });
});
