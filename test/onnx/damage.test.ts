import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FishyError } from "../../src/errors.js";
import { decodeModel, encodeModel } from "../../src/onnx/codec.js";
import { GRAPHS } from "../support/shared.js";

const whole = new Uint8Array(readFileSync(join(GRAPHS, "pytorch", "regression_mse_in_graph", "model.onnx")));

/** Decodes; anything but a model or a FishyError fails the test. */
function decodes(bytes: Uint8Array): boolean {
  try {
    encodeModel(decodeModel(bytes, "model.onnx"));
    return true;
  } catch (error) {
    if (!(error instanceof FishyError)) throw error;
    expect(error.message).toMatch(/^model\.onnx is /);
    return false;
  }
}

describe("damaged files", () => {
  it("says of every beginning of a model that it is cut off or no model", () => {
    expect(decodes(whole)).toBe(true);
    for (let length = 0; length < whole.length; length++)
      expect(decodes(whole.subarray(0, length)), `${length}`).toBe(false);
  });

  it("never fails in another way when bytes are changed", () => {
    const change = fc.tuple(fc.nat(whole.length - 1), fc.nat(255));
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 20 }), (changes) => {
        const bytes = whole.slice();
        for (const [position, value] of changes) bytes[position] = value;
        decodes(bytes);
      }),
      { numRuns: 500 },
    );
  });

  it("never fails in another way on noise", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 300 }), (bytes) => {
        decodes(bytes);
      }),
      { numRuns: 500 },
    );
  });
});
