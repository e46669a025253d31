/** Which layers, boundaries and families are found in real models, and how they are cut. */
import { describe, expect, it } from "vitest";
import { prepare } from "../../src/rewrite/prepare.js";
import { sectionsOf } from "../../src/rewrite/rewrite.js";
import { boundaryLayers } from "../../src/sections/plan.js";
import { parseSections } from "../../src/sections/spec.js";
import { goldenLoss } from "../support/golden-run.js";
import { loadGolden } from "../support/shared.js";

async function prepared(name: string) {
  const golden = loadGolden(name);
  return prepare(golden.model, { loss: goldenLoss(golden) });
}

async function plan(name: string, sections: string) {
  return sectionsOf(await prepared(name), parseSections(sections));
}

describe("layers", () => {
  it("of an autoencoder: tanh, a linear code, and logits whose family the loss implies", async () => {
    const model = await prepared("autoencoder_tanh");
    const layers = boundaryLayers(model.layers, model.output as NonNullable<typeof model.output>);
    expect(layers.map((layer) => layer.family.name)).toEqual(["tanh", "tanh", "gaussian", "tanh", "tanh", "bernoulli"]);
    expect(layers[0]?.parameters).toEqual(["encoder.0.weight", "encoder.0.bias"]);
  });

  it("of every activation of the activations model", async () => {
    const model = await prepared("activations");
    const layers = boundaryLayers(model.layers, model.output as NonNullable<typeof model.output>);
    const families = layers.map((layer) => layer.family.name);
    for (const family of ["elu", "selu", "celu", "softplus", "leaky_relu", "prelu", "bernoulli", "relu"]) {
      expect(families, family).toContain(family);
    }
    // Softsign is exported as x / (1 + |x|): its input has two uses, so its layer is linear.
    expect(families).toContain("gaussian");
  });
});

describe("normalisations", () => {
  it("between a convolution and its activation belong to its layer", async () => {
    const { sections } = await plan("resnet_small", "per-layer");
    expect(sections.find(({ name }) => name === "stem.0")?.parameters).toEqual([
      "stem.0.weight",
      "stem.1.weight",
      "stem.1.bias",
    ]);
  });

  it("after a residual sum are layers of their own: no linear layer's gradient brings theirs", async () => {
    const { sections, boundaries } = await plan("transformer_encoder", "per-layer");
    const own = sections.find(({ name }) => name === "t.layers.1.norm1");
    expect(own?.parameters).toEqual(["t.layers.1.norm1.weight", "t.layers.1.norm1.bias"]);
    expect(boundaries.find(({ name }) => name === "t.layers.1.norm1")?.family.name).toBe("gaussian");
    const linear = sections.find(({ name }) => name === "t.layers.1.linear1");
    expect(linear?.parameters).toEqual(["t.layers.1.linear1.weight", "t.layers.1.linear1.bias"]);
  });

  it("are not counted by every:K, and not among a classifier's layers", async () => {
    for (const spec of ["every:1", "classifier"]) {
      const { boundaries } = await plan("transformer_encoder", spec);
      expect(boundaries.map(({ name }) => name).filter((name) => name.includes("norm"))).toEqual([]);
    }
  });
});

describe("sections", () => {
  it("put every parameter into exactly one", async () => {
    for (const spec of ["per-layer", "output", "classifier", "every:2", "encoder.0"]) {
      const { sections } = await plan("autoencoder_tanh", spec);
      const all = sections.flatMap((section) => section.parameters);
      expect(new Set(all).size, spec).toBe(all.length);
      expect(all, spec).toHaveLength(12);
    }
  });

  it("per-layer: one for each layer", async () => {
    const { sections, boundaries } = await plan("autoencoder_tanh", "per-layer");
    expect(sections).toHaveLength(6);
    expect(boundaries.map((boundary) => boundary.name)).toEqual(sections.map((section) => section.name));
  });

  it("every:K counts back from the output", async () => {
    const { boundaries } = await plan("autoencoder_tanh", "every:4");
    const all = await plan("autoencoder_tanh", "per-layer");
    expect(boundaries.map((boundary) => boundary.name)).toEqual([1, 5].map((i) => all.boundaries[i]?.name));
  });

  it("classifier: the dense layers of a VGG; the convolutions inherit from the first of them", async () => {
    const { sections, boundaries } = await plan("vgg_small", "classifier");
    expect(boundaries.map((boundary) => boundary.name)).toEqual(["classifier.0", "classifier.3", "classifier.6"]);
    expect(sections[0]?.parameters).toContain("features.0.weight");
    expect(sections[0]?.parameters).toContain("classifier.0.weight");
    expect(sections.map((section) => section.parameters.length)).toEqual([10, 2, 2]);
  });

  it("in a residual network: convolutions that meet in a sum share its section", async () => {
    const { sections } = await plan("resnet_small", "per-layer");
    const shared = sections.find((section) => section.parameters.includes("l.1.c2.weight"));
    expect(shared?.parameters).toContain("l.1.d.0.weight");
    expect(shared?.parameters).not.toContain("l.1.c1.weight");
  });

  it("of tied weights: the embedding's layers and the output are one section", async () => {
    const { sections } = await plan("gpt_tied", "per-layer");
    const tied = sections.filter((section) => section.parameters.includes("wte.weight"));
    expect(tied).toHaveLength(1);
    expect(tied[0]?.parameters).toContain("wpe.weight");
    expect(tied[0]?.parameters).toContain("ln.weight");
  });

  it("by name: the named layer and the output", async () => {
    const { sections } = await plan("autoencoder_tanh", "encoder.2");
    expect(sections.map((section) => section.parameters.length)).toEqual([4, 8]);
  });

  it("refuse a name that no layer has, and tell the layers", async () => {
    await expect(plan("mlp_tanh", "nowhere")).rejects.toThrow(/No layer is named 'nowhere'.*The layers are: 0, 2, 4/);
  });
});
