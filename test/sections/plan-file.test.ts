/** Editable plans: unedited they change nothing; edits do what they say; mistakes are told with their line. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as ort from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { encodeModel } from "../../src/onnx/codec.js";
import { loadModel } from "../../src/onnx/model-file.js";
import type { ModelProto } from "../../src/onnx/proto.js";
import { editablePlan } from "../../src/rewrite/editable-plan.js";
import { type RewriteOptions, rewrite } from "../../src/rewrite/rewrite.js";
import { parsePlan } from "../../src/sections/plan-file.js";
import { parseSections } from "../../src/sections/spec.js";
import { fishy } from "../support/cli.js";
import { forward, twoLayerNet } from "../support/mlp.js";
import { writeExamples } from "../support/npy.js";
import { f32, runModel } from "../support/run.js";
import { GRAPHS } from "../support/shared.js";
import { temporaryFolder } from "../training/support.js";

const folder = temporaryFolder();
const path = (name: string) => join(folder, name);
const LOSS: RewriteOptions = { loss: "softmax-cross-entropy" };

async function textOf(model: ModelProto, options: RewriteOptions = LOSS): Promise<string> {
  return (await editablePlan(model, options, "a model")).text;
}

/** The program of a plan, after an edit of its text. */
async function programOf(model: ModelProto, edit: (text: string) => string = (text) => text, options = LOSS) {
  return rewrite(model, { ...options, sections: parsePlan(edit(await textOf(model)), "plan.yaml") });
}

describe("a plan that nobody edited", () => {
  const models: [string, RewriteOptions][] = [
    ["pytorch/mlp_tanh/model.onnx", LOSS],
    ["pytorch/activations/model.onnx", { loss: "mean-squared-error" }],
    ["pytorch/autoencoder_tanh/model.onnx", { loss: "sigmoid-cross-entropy" }],
    ["pytorch/resnet_small/model.onnx", LOSS],
    ["pytorch/transformer_encoder/model.onnx", LOSS],
    ["pytorch/mlp_loss_in_graph/model.onnx", {}],
    ["architectures/lstm_stacked/model.onnx", LOSS],
  ];
  it.each(models)("gives the program of %s bit for bit", async (file, options) => {
    const { proto } = await loadModel(join(GRAPHS, file));
    for (const sections of ["per-layer", "output", "every:2"].map(parseSections)) {
      const plain = await rewrite(proto, { ...options, sections });
      const { text } = await editablePlan(proto, { ...options, sections }, file);
      const again = await rewrite(proto, { ...options, sections: parsePlan(text, "plan.yaml") });
      expect(Buffer.from(encodeModel(again.model)).equals(Buffer.from(encodeModel(plain.model)))).toBe(true);
    }
  });

  it("from the command line too, and as JSON", async () => {
    const model = join(GRAPHS, "pytorch/cnn/model.onnx");
    const loss = ["--loss", "softmax-cross-entropy"];
    const { stdout } = await fishy("inspect", model, ...loss, "--plan", path("cnn.yaml"));
    expect(stdout).toBe(`Wrote ${path("cnn.yaml")} (boundaries: 4, sections: 4)\n`);
    await fishy("rewrite", model, ...loss, "-o", path("plain.onnx"));
    const { stderr } = await fishy(
      "rewrite",
      model,
      ...loss,
      "-o",
      path("planned.onnx"),
      "--sections",
      path("cnn.yaml"),
    );
    expect(stderr).toBe("");
    expect(readFileSync(path("planned.onnx")).equals(readFileSync(path("plain.onnx")))).toBe(true);
    writeFileSync(path("out.json"), JSON.stringify({ version: 1, boundaries: [{ at: "output" }] }));
    const json = await fishy("rewrite", model, ...loss, "-o", path("j.onnx"), "--sections", path("out.json"), "--json");
    expect(JSON.parse(json.stdout).manifest.boundaries).toMatchObject([{ preActivation: "output", family: "softmax" }]);
    expect((await fishy("rewrite", model, ...loss, "-o", path("no.onnx"), "--sections", "no.yaml")).stderr).toMatch(
      /The plan no\.yaml cannot be read: .*--plan FILE writes one/,
    );
  });
});

it("a run trains with a plan, keeps it, goes on with it, and refuses another", async () => {
  writeExamples(folder, 32);
  const model = join(GRAPHS, "pytorch/mlp_tanh/model.onnx");
  const loss = ["--loss", "softmax-cross-entropy"];
  await fishy("inspect", model, ...loss, "--sections", "output", "--plan", path("run.yaml"));
  const train = (...flags: string[]) =>
    fishy(
      "train",
      model,
      ...loss,
      "--data",
      `x=${path("x.npy")}`,
      path("labels.npy"),
      "--quiet",
      "--out",
      path("run"),
      ...flags,
    );
  const plan = ["--sections", path("run.yaml")];
  const first = await train(...plan, "--optimizer", "fishy", "--batch-size", "16", "--steps", "2");
  expect(first.stderr).toBe("");
  const { rewrite: kept } = JSON.parse(readFileSync(path("run/options.json"), "utf8"));
  expect(kept.sections).toMatchObject({ kind: "plan", boundaries: [{ at: "output" }] });
  expect((await train("--resume", path("run"), ...plan, "--steps", "3", "--accept-changes")).stderr).toBe("");
  expect((await train("--resume", path("run"), "--sections", "per-layer")).stderr).toMatch(
    /other options would change: sections/,
  );
  await fishy("report", path("run"));
  expect(readFileSync(path("run/report.html"), "utf8")).toMatch(
    /"name":"rewrite\.sections\.boundaries","values":\["\{/,
  );
});

describe("edits", () => {
  const { model } = twoLayerNet();

  it("a boundary taken out gives its parameters to the one behind it; a commented layer can be put in", async () => {
    const out = await programOf(model, (text) => text.replace(/ {2}- name: fc1\n(?: {4}.*\n)+/, ""));
    expect(out.manifest.sections).toEqual([{ name: "fc2", boundaries: [0], parameters: ["fc1.weight", "fc2.weight"] }]);
    const text = await textOf(model, { ...LOSS, sections: parseSections("output") });
    expect(text).toMatch(/^# {2}- name: fc1\n# {4}at: a1\n# {4}family: tanh # Tanh$/m);
    const sections = parsePlan(text.replace(/^#(?= {2}(- | {2}(at|family):))/gm, ""), "plan.yaml");
    const both = await rewrite(model, { ...LOSS, sections });
    const plain = await rewrite(model, LOSS);
    expect(Buffer.from(encodeModel(both.model)).equals(Buffer.from(encodeModel(plain.model)))).toBe(true);
  });

  it("names and families change as written; the order of the file does not matter", async () => {
    const { manifest } = await programOf(model, () =>
      [
        "version: 1",
        "boundaries:",
        "- at: logits",
        "- { name: first, at: a1, family: elu, parameters: { alpha: 0.5 } }",
      ].join("\n"),
    );
    expect(manifest.boundaries).toEqual([
      { name: "first", preActivation: "a1", family: "elu", familyParameters: { alpha: 0.5 } },
      expect.objectContaining({ name: "fc2", preActivation: "logits", family: "softmax" }),
    ]);
  });

  /** The sampled gradient of fc1.weight for a batch of one, [6, 5]. */
  async function sampled(program: { model: ModelProto }): Promise<Float32Array> {
    const { x } = twoLayerNet();
    const outputs = await runModel(program.model, {
      x: f32(x.slice(0, 5), [1, 5]),
      labels: new ort.Tensor("int64", [1n], [1]),
      seed: new ort.Tensor("int64", [7n], []),
    });
    return outputs["fc1.weight_sampled_grad"]?.data as Float32Array;
  }
  const gaussianAt = (at: string) => `version: 1\nboundaries: [{ at: ${at}, family: gaussian }, { at: logits }]`;

  it("another family draws as that family does: a Gaussian at tanh's pre-activation like at that of Mish", async () => {
    const ours = await sampled(await programOf(model, () => gaussianAt("a1")));
    // Mish has no family of its own, so that its layer's is Gaussian without a plan.
    const mish = await sampled(await rewrite(twoLayerNet("HardSwish").model, LOSS));
    expect(ours).toEqual(mish);
    expect(ours.some((value) => value !== 0)).toBe(true);
  });

  it("a boundary at a value that is no pre-activation: the gradient passes what lies between", async () => {
    const before = await sampled(await programOf(model, () => gaussianAt("a1")));
    const program = await programOf(model, () => gaussianAt("h1"));
    expect(program.manifest.boundaries[0]).toMatchObject({ name: "h1", preActivation: "h1", family: "gaussian" });
    const after = await sampled(program);
    const net = twoLayerNet();
    const { h1 } = forward({ ...net, batch: 1, x: net.x.slice(0, 5) }, Math.tanh);
    // ε xᵀ at a1, (ε ∘ (1 − tanh²)) xᵀ at h1, with the same ε.
    for (let i = 0; i < 30; i++) {
      const slope = 1 - ((h1[0] as number[])[Math.floor(i / 5)] as number) ** 2;
      expect(after[i]).toBeCloseTo((before[i] as number) * slope, 5);
    }
  });

  it.each(["exact", "two-point", "expected"] as const)("draws of kind %s run at such a value", async (draw) => {
    const { x } = twoLayerNet();
    const program = await rewrite(model, { ...LOSS, draw, sections: parsePlan(gaussianAt("h1"), "plan.yaml") });
    const outputs = await runModel(program.model, {
      x: f32(x, [4, 5]),
      labels: new ort.Tensor("int64", [0n, 1n, 2n, 0n], [4]),
      seed: new ort.Tensor("int64", [1n], []),
    });
    for (const { data } of Object.values(outputs))
      expect(Array.from(data as Float32Array).every(Number.isFinite)).toBe(true);
  });
});

describe("mistakes", () => {
  const head = "version: 1\nboundaries:\n";
  it.each([
    ["a: [", /^plan\.yaml:1: this is no YAML/],
    ["- 1", /^plan\.yaml: a plan holds 'version' and 'boundaries'/],
    ["boundaries: []", /^plan\.yaml: the plan's version is not given; this fishy reads version 1/],
    ["version: 2\nboundaries: []", /version is 2/],
    ["version: 1", /'boundaries' must list at least/],
    ["version: 1\nextra: 3\nboundaries: [{at: a}]", /^plan\.yaml:2: 'extra' is no part of a plan/],
    [`${head}- 3`, /^plan\.yaml:3: a boundary is written by/],
    [`${head}- at: a1\n  famly: tanh`, /^plan\.yaml:4: a boundary has no 'famly'; it has name, at, family, parameters/],
    [`${head}- name: x`, /^plan\.yaml:3: a boundary needs 'at'/],
    [`${head}- at: [1]`, /^plan\.yaml:3: 'at' must be text/],
    [
      `${head}- at: a1\n- at: logits\n- at: a1`,
      /^plan\.yaml:5: the boundary at 'a1' is there already \(plan\.yaml:3\)/,
    ],
    [`${head}- at: a1\n  family: tahn`, /^plan\.yaml:4: there is no family 'tahn'\. Families: gaussian,/],
    [
      `${head}- at: a1\n  family: elu\n  parameters: { beta: 1 }`,
      /^plan\.yaml:4: The family 'elu' has no parameter 'beta'/,
    ],
    [
      `${head}- at: a1\n  family: elu\n  parameters: { alpha: x }`,
      /^plan\.yaml:5: the family's parameter 'alpha' must be a number/,
    ],
    [`${head}- at: a1\n  parameters: { alpha: 1 }`, /^plan\.yaml:4: 'parameters' are those of 'family'/],
  ])("%j", (text, message) => {
    expect(() => parsePlan(text, "plan.yaml")).toThrow(message);
  });

  it.each([
    [`${head}- at: a1`, /^plan\.yaml: the boundary of the output, at 'logits', must stay/],
    [
      `${head}- at: a7\n- at: logits`,
      /^plan\.yaml:3: the graph has no value 'a7'\. The layers' boundaries are at: a1, logits/,
    ],
    [
      `${head}- at: h1\n- at: logits`,
      /^plan\.yaml:3: 'h1' is the pre-activation of no layer, so that its family must be given/,
    ],
    [`${head}- at: x\n  family: gaussian\n- at: logits`, /^plan\.yaml:3: the graph has no value 'x'/],
    [
      `${head}- at: logits\n  family: gaussian`,
      /^plan\.yaml:3: the family of the output follows from the loss: softmax, not gaussian/,
    ],
  ])("that the graph shows: %j", async (text, message) => {
    await expect(rewrite(twoLayerNet().model, { ...LOSS, sections: parsePlan(text, "plan.yaml") })).rejects.toThrow(
      message,
    );
  });

  it("a boundary that no parameter reaches: before the first layer, or behind the output", async () => {
    const net = twoLayerNet().model;
    const [first] = net.graph.node as [(typeof net.graph.node)[0]];
    first.input[0] = "scaled";
    net.graph.node.unshift({ opType: "Neg", name: "scale", input: ["x"], output: ["scaled"], attribute: [] });
    net.graph.node.push({ opType: "Exp", name: "exp", input: ["logits"], output: ["exp"], attribute: [] });
    for (const at of ["scaled", "exp"]) {
      const text = `${head}- at: logits\n- at: ${at}\n  family: gaussian`;
      await expect(rewrite(net, { ...LOSS, sections: parsePlan(text, "plan.yaml") })).rejects.toThrow(
        `plan.yaml:4: no parameter that trains reaches '${at}' without passing another boundary`,
      );
    }
  });

  it("a name that looks like a number is a name", () => {
    expect(parsePlan(`${head}- at: 0123`, "p")).toMatchObject({ boundaries: [{ at: "0123" }] });
  });
});
