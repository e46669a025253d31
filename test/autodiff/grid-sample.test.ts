import { describe, expect, it } from "vitest";
import { expectGradients, gradientsOf } from "../support/gradient-check.js";

/**
 * Points in pixels, (across, down), a good way from whole coordinates, where the gradient jumps: inside the image, across
 * its edge and outside.
 */
const POINTS = [
  [0.4, 1.4],
  [2.6, 0.5],
  [-0.4, 1.6],
  [3.45, 2.5],
  [1.5, -0.6],
  [-2.5, 4.5],
] as const;
const [HEIGHT, WIDTH] = [3, 4];

/** Grid coordinates of points in pixels. */
function gridOf(points: readonly (readonly [number, number])[], alignCorners: number): number[] {
  return points.flatMap(([across, down]) =>
    [
      [across, WIDTH],
      [down, HEIGHT],
    ].map(([pixel, size]) =>
      alignCorners
        ? ((pixel as number) * 2) / ((size as number) - 1) - 1
        : (((pixel as number) + 0.5) * 2) / (size as number) - 1,
    ),
  );
}

describe("GridSample", () => {
  for (const align_corners of [0, 1]) {
    for (const padding_mode of ["zeros", "border"]) {
      it(`bilinear, align_corners ${align_corners}, ${padding_mode}`, () =>
        expectGradients({
          inputs: [
            { dims: [2, 3, HEIGHT, WIDTH] },
            {
              dims: [2, 2, 3, 2],
              values: [...gridOf(POINTS, align_corners), ...gridOf([...POINTS].reverse(), align_corners)],
            },
          ],
          build: (b, x) => b.op("GridSample", x, { align_corners, padding_mode }),
          precision: "float32",
          allow: ["Floor"],
          tolerance: 1e-3,
        }));
      it(`nearest, align_corners ${align_corners}, ${padding_mode}`, () =>
        expectGradients({
          inputs: [
            { dims: [1, 2, HEIGHT, WIDTH] },
            {
              dims: [1, 2, 3, 2],
              values: gridOf(
                POINTS.map(([across, down]) => [across + 0.3, down - 0.25]),
                align_corners,
              ),
            },
          ],
          build: (b, x) => b.op("GridSample", x, { mode: "nearest", align_corners, padding_mode }),
          precision: "float32",
          allow: ["Round"],
          tolerance: 1e-4,
        }));
    }
  }

  it("adds up what is read twice", async () => {
    const [image] = await gradientsOf({
      inputs: [
        { dims: [1, 1, HEIGHT, WIDTH] },
        {
          dims: [1, 1, 3, 2],
          values: gridOf(
            [
              [1, 1],
              [1, 1],
              [1.5, 1],
            ],
            1,
          ),
        },
      ],
      build: (b, x) => b.op("GridSample", x, { align_corners: 1 }),
      precision: "float32",
      allow: ["Floor"],
    });
    const expected = [0, 0, 0, 0, 0, 2.5, 0.5, 0, 0, 0, 0, 0];
    for (const [i, value] of expected.entries()) expect(image?.[i]).toBeCloseTo(value, 5);
  });

  it.each([
    [{ mode: "bicubic" }, /mode 'bicubic'/],
    [{ padding_mode: "reflection" }, /reflection/],
  ])("refuses %j", (attributes, message) =>
    expect(
      expectGradients({
        inputs: [{ dims: [1, 1, 3, 4] }, { dims: [1, 1, 1, 2] }],
        build: (b, x) => b.op("GridSample", x, attributes),
        precision: "float32",
      }),
    ).rejects.toThrow(message),
  );
});
