/** Bad input: a clear paragraph that names what is wrong and the remedy, exit code 1; wrong usage: exit code 2. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { fishy } from "../support/cli.js";
import { npyBytes } from "../support/npy.js";
import { GRAPHS } from "../support/shared.js";

const folder = mkdtempSync(join(tmpdir(), "fishy-cli-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const path = (name: string) => join(folder, name);
const MLP = join(GRAPHS, "pytorch/mlp_tanh/model.onnx");
const AUTOENCODER = join(GRAPHS, "pytorch/autoencoder_tanh/model.onnx");
const IN_GRAPH = join(GRAPHS, "pytorch/mlp_loss_in_graph/model.onnx");

function file(name: string, bytes: Uint8Array | string): string {
  writeFileSync(path(name), bytes);
  return path(name);
}

async function expectError(argv: string[], code: number, ...messages: RegExp[]): Promise<void> {
  const result = await fishy(...argv);
  expect(result.code, result.stderr).toBe(code);
  for (const message of messages) expect(result.stderr).toMatch(message);
  expect(result.stderr).not.toMatch(/\n\s+at /);
  expect(result.stdout).toBe("");
}

describe("models that cannot be read", () => {
  it.each([
    ["a missing file", () => path("nowhere.onnx"), /nowhere\.onnx/],
    ["a file that is no ONNX model", () => file("text.onnx", "hello, this is no model\n"), /text\.onnx is (not|no) /],
    ["an empty file", () => file("empty.onnx", ""), /empty\.onnx is empty/],
    ["a truncated file", () => file("cut.onnx", readFileSync(MLP).subarray(0, 5000)), /cut\.onnx.*(cut off|truncated)/],
  ])("%s", async (_, make, message) => {
    for (const command of [["inspect"], ["rewrite", "-o", path("out.onnx")]]) {
      await expectError([...command, make()], 1, message);
    }
  });
});

describe("losses that do not fit", () => {
  const rewrite = (...argv: string[]) => ["rewrite", ...argv, "-o", path("out.onnx")];

  it("no loss: lists the choices", () =>
    expectError(rewrite(MLP), 1, /softmax-cross-entropy/, /sigmoid-cross-entropy/, /mean-squared-error/, /in-graph/));
  it("in-graph without a scalar output", () =>
    expectError(rewrite(MLP, "--loss", "in-graph"), 1, /scalar/, /'output' float \[/));
  it("an appended loss on a scalar output", () =>
    expectError(rewrite(IN_GRAPH, "--loss", "softmax-cross-entropy"), 1, /'loss'/, /--loss in-graph/));
  it("a class axis out of range", () =>
    expectError(rewrite(MLP, "--loss", "softmax-cross-entropy", "--class-axis", "5"), 1, /class axis is 5/));
  it("a target input that does not exist", () =>
    expectError(rewrite(MLP, "--loss", "mean-squared-error", "--target-input", "z"), 1, /'z' is no input/));
  it("a loss that does not exist is wrong usage", () =>
    expectError(rewrite(MLP, "--loss", "hinge"), 2, /hinge/, /softmax-cross-entropy/));
});

describe("plans that do not work", () => {
  const base = ["rewrite", MLP, "--loss", "softmax-cross-entropy", "-o", path("out.onnx")];

  it("an unknown boundary: lists the layers", () =>
    expectError([...base, "--sections", "nowhere"], 1, /'nowhere'/, /The layers are: 0, 2, 4/));
  it("everything frozen", () => expectError([...base, "--freeze", "*"], 1, /freezes all 6 parameters/));
  it("a pattern that matches nothing", () =>
    expectError([...base, "--freeze", "encoder.*"], 1, /'encoder\.\*' matches no parameter/, /0\.weight/));
  it("every:0", () => expectError([...base, "--sections", "every:0"], 2, /every:0/));
});

describe("wrong usage", () => {
  it("an unknown command", () => expectError(["fly"], 2, /unknown command 'fly'/));
  it("an unknown option", () => expectError(["inspect", MLP, "--fast"], 2, /--fast/));
  it("no output", () => expectError(["rewrite", MLP], 2, /--output/));
  it("no data", () => expectError(["train", MLP, "--optimizer", "adam"], 2, /--data/));
  it("an option that the optimizer does not have", () =>
    expectError(
      ["train", MLP, "--data", folder, "--optimizer", "adam", "-O", "beta3=1", "--out", path("run")],
      2,
      /no option 'beta3'/,
      /beta2/,
    ));
  it("a value out of range", () =>
    expectError(
      ["train", MLP, "--data", folder, "--optimizer", "adam", "-O", "beta2=1.5", "--out", path("run")],
      2,
      /beta2.*\[0, 1\).*1\.5/,
    ));
  it("an option inside of another that is a number", () =>
    expectError(
      ["train", MLP, "--data", folder, "--optimizer", "adam", "-O", "beta2=0.9", "beta2.more=1", "--out", path("run")],
      2,
      /--option 'beta2\.more=1' lies in 'beta2', which another --option makes 0\.9/,
    ));
  // So many threads, which spin, would block the machine.
  it.each([
    ["train", MLP, "--data", folder, "--optimizer", "adam", "--threads", "100000", "--out", path("run")],
    ["eval", MLP, "--data", folder, "--threads", "100000"],
    ["eval", MLP, "--data", folder, "--threads=-1"],
  ])("threads beyond a machine's: %j", (...argv) => expectError(argv, 2, /'threads' of (train|eval) must be .*1024/));
  it("a run that pauses before its first step", () =>
    expectError(
      [
        ...["train", MLP, "--loss", "softmax-cross-entropy", "--data", "x.npy", "--optimizer", "adam"],
        ...["--pause-at", "0", "--out", path("paused")],
      ],
      2,
      /pause after a step, counted from 1.*got 0/,
    ));
  it("a seed beyond whole numbers", () =>
    expectError(
      ["train", MLP, "--data", "x.npy", "--optimizer", "adam", "--seed", "1e300", "--out", path("run")],
      2,
      /'seed' of train must be an integer in \[0, 9007199254740991\]; got 1e\+300/,
    ));
  it("a configuration that does not end", () =>
    expectError(["train", "--config", file("cut.json", "{")], 1, /cut\.json is neither JSON nor YAML: [^\n]*\.\n$/));
  it.each(["1", "1e9"])("%s draws of a family", (count) =>
    expectError(["families", "tanh", "--samples", count], 2, /at least 2 and at most 1000000/),
  );
  it.each([",", "0.5,", "0.5,x"])("means that are no list of numbers: '%s'", (mean) =>
    expectError(
      ["train", MLP, "--data", folder, "--optimizer", "adam", "--mean", mean, "--std", "1", "--out", path("run")],
      2,
      /--mean '.*' must be numbers separated by commas/,
    ),
  );
});

describe("a training program", () => {
  const program = path("given.onnx");
  beforeAll(async () => {
    expect((await fishy("rewrite", MLP, "--loss", "softmax-cross-entropy", "-o", program)).code).toBe(0);
  });

  it.each([
    [["rewrite", program, "-o", path("again.onnx")], 1, /is a training program already/],
    [["inspect", program], 1, /is a training program already/],
    [
      [
        "train",
        program,
        "--loss",
        "softmax-cross-entropy",
        "--data",
        "x.npy",
        "--optimizer",
        "adam",
        "--out",
        path("t"),
      ],
      2,
      /given\.onnx is a training program already, which loss cannot change/,
    ],
  ] as const)("is not rewritten again: %j", (argv, code, message) => expectError([...argv], code, message));

  it("is not written over its model", async () => {
    const own = file("own.onnx", readFileSync(MLP));
    await expectError(["rewrite", own, "--loss", "softmax-cross-entropy", "-o", own], 2, /is the model itself/);
    await expectError(["init", own, "-o", own], 2, /is the model itself/);
    expect(readFileSync(own)).toEqual(readFileSync(MLP));
  });
});

describe("options that exclude each other", () => {
  it.each([
    [["inspect", MLP, "--html", "x.html", "--plan", "x.yaml"], /--plan and --html are different views/],
    [["inspect", MLP, "--size", "n=2"], /--size is for --html and --device/],
    [["rewrite", MLP, "-o", "x.onnx", "--training-info", "--keep-backward"], /write different files/],
    [["rewrite", MLP, "-o", "x.onnx", "--training-info", "--sections", "output"], /without samples/],
  ])("%j", (argv, message) => expectError(argv, 2, message));
});

describe("data that does not fit", () => {
  const x = (values: Float32Array, dims: number[]) => file("x.npy", npyBytes("<f4", dims, values));
  const train = (data: string[], out: string) => [
    ...["train", MLP, "--loss", "softmax-cross-entropy", "--optimizer", "adam", "--steps", "2", "--batch-size", "4"],
    ...["--out", path(out), "--data", ...data, "--quiet"],
  ];
  // mlp_tanh takes 20 features and has 5 classes.
  const features = 20;

  it("a label out of range: the row and the range", async () => {
    const labels = file("y.npy", npyBytes("<i8", [8], BigInt64Array.of(0n, 1n, 2n, 3n, 4n, 99n, 0n, 1n)));
    await expectError(
      train([`x=${x(new Float32Array(8 * features), [8, features])}`, `labels=${labels}`], "labels"),
      1,
      /labels/,
      /99/,
    );
  });

  it("NaN in the data: the column and the row", async () => {
    const values = new Float32Array(8 * features);
    values[3 * features + 1] = Number.NaN;
    const labels = file("z.npy", npyBytes("<i8", [8], new BigInt64Array(8)));
    await expectError(train([`x=${x(values, [8, features])}`, `labels=${labels}`], "nan"), 1, /'x'/, /NaN/, /3/);
  });

  it("the wrong number of features", async () => {
    const labels = file("w.npy", npyBytes("<i8", [8], new BigInt64Array(8)));
    await expectError(
      train([`x=${x(new Float32Array(8 * 3), [8, 3])}`, `labels=${labels}`], "shape"),
      1,
      /\[3\]/,
      /\[20\]/,
    );
  });

  it("leaves no run behind that would be in the way of the next try", async () => {
    const labels = (name: string, last: bigint) =>
      file(name, npyBytes("<i8", [8], BigInt64Array.of(0n, 1n, 2n, 3n, 4n, 0n, 1n, last)));
    const data = (y: string) => [`x=${x(new Float32Array(8 * features), [8, features])}`, `labels=${y}`];
    await expectError(train(data(labels("bad.npy", -1n)), "again"), 1, /-1/);
    const result = await fishy(...train(data(labels("good.npy", 2n)), "again"));
    expect(result.stderr).toBe("");
    expect(result.code).toBe(0);
  });

  it("a missing file", () => expectError(train([path("nowhere.npy")], "missing"), 1, /nowhere\.npy/));
});

describe("export", () => {
  it("of a folder that holds no run", () => expectError(["export", folder, "-o", path("m.onnx")], 1, /fishy-cli-/));
  it("leaves a model that is already there alone when it fails", async () => {
    const target = file("keep.onnx", "precious");
    await fishy("export", path("no-run"), "-o", target);
    expect(readFileSync(target, "utf8")).toBe("precious");
  });
});

describe("help", () => {
  it.each([[], ["inspect"], ["rewrite"], ["train"], ["export"]])("%s --help", async (...command) => {
    const result = await fishy(...command.filter(Boolean), "--help");
    expect(result.code).toBe(0);
    expect(result.stdout).toMatch(/Usage: fishy/);
  });
});

describe("inspect and rewrite", () => {
  it("answer in JSON", async () => {
    const inspected = await fishy("inspect", AUTOENCODER, "--json");
    expect(inspected.code).toBe(0);
    const description = JSON.parse(inspected.stdout);
    expect(description.parameters).toHaveLength(12);
    expect(description.loss).toBeNull();
    const rewritten = await fishy(
      ...["rewrite", AUTOENCODER, "--loss", "sigmoid-cross-entropy", "--target-input", "x"],
      ...["--sections", "every:2", "-o", path("p.onnx"), "--json"],
    );
    expect(rewritten.stderr).toBe("");
    const { manifest, operators } = JSON.parse(rewritten.stdout);
    expect(manifest.sections).toHaveLength(3);
    expect(operators.Gemm.before).toBe(6);
    expect(operators.Gemm.after).toBeGreaterThan(6 + 12);
    const planned = await fishy(
      ...["inspect", AUTOENCODER, "--loss", "sigmoid-cross-entropy", "--target-input", "x"],
      ...["--sections", "every:2", "--json"],
    );
    const { sections } = JSON.parse(planned.stdout);
    expect(sections.map(({ parameters }: { parameters: string[] }) => parameters)).toEqual(
      manifest.sections.map(({ parameters }: { parameters: string[] }) => parameters),
    );
  });

  it("print the same table of sections", async () => {
    const flags = ["--loss", "softmax-cross-entropy", "--sections", "output"];
    const inspected = await fishy("inspect", MLP, ...flags);
    const table = inspected.stdout.slice(inspected.stdout.indexOf("section "));
    const rewritten = await fishy("rewrite", MLP, ...flags, "-o", path("sections.onnx"));
    expect(table).toMatch(/sampled at.*\n.*\n.*softmax/);
    expect(rewritten.stdout).toContain(table.trim());
    expect((await fishy("inspect", MLP, "--sections", "output")).stderr).toMatch(/no loss/);
  });
});

describe("an empty text, as from a variable of the shell that is not set, is wrong usage", () => {
  const train = (...argv: string[]) => ["train", MLP, "--data", "x.npy", "--optimizer", "adam", ...argv];

  it.each([
    ["--scale", train("--scale", "")],
    ["--held-out", train("--held-out", "")],
    ["--held-out", train("--held-out", "a.npy", " ")],
    ["--data", ["train", MLP, "--data", "", "--optimizer", "adam"]],
    ["--out", train("--out", "")],
    ["--resume", ["train", "--resume", ""]],
    ["model", ["inspect", ""]],
    ["runs", ["report", ""]],
  ])("%s in %j", (name, argv) => expectError(argv, 2, new RegExp(`^fishy: ${name} is (given )?an empty text`)));

  it("where a number is wanted, too", () => expectError(train("--seed", ""), 2, /--seed.*'' is not a whole number/));
});
