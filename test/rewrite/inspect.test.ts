import { describe, expect, test } from "vitest";
import { inspectModel } from "../../src/rewrite/inspect.js";
import { loadGolden } from "../support/shared.js";

describe("what is in a model", () => {
  test.each(["densenet", "mobilenetv3_block"])(
    "%s: parameters and running statistics are tensors of the file",
    async (name) => {
      const { model } = loadGolden(name, "architectures");
      const { parameters, buffers } = await inspectModel(model, { loss: "softmax-cross-entropy" });
      const names = model.graph.initializer.map((tensor) => tensor.name ?? "");
      expect(buffers.length).toBeGreaterThan(0);
      expect(buffers).toEqual(buffers.filter((buffer) => names.includes(buffer) && /running_(mean|var)$/.test(buffer)));
      // As many as PyTorch has: a mean and a variance for each scale of a normalisation.
      expect(buffers.length).toBe(names.filter((tensor) => /running_(mean|var)$/.test(tensor)).length);
      expect(parameters.map((parameter) => parameter.name).filter((parameter) => !names.includes(parameter))).toEqual(
        [],
      );
    },
  );
});
