/** Simple augmentation of images: a random crop of the padded image, and a mirror image half of the time. */
import { FishyError } from "../errors.js";
import type { TensorData } from "../onnx/tensor.js";
import type { Column } from "./dataset.js";
import { hashWords, Random } from "./random.js";

export interface AugmentOptions {
  /** Shifts by up to as many pixels in both directions; zeros come in: torchvision's RandomCrop with this padding. */
  readonly crop?: number | undefined;
  /** Mirrors left and right with probability ½. */
  readonly flip?: boolean | undefined;
}

/** What decides the augmentation of an example: with its row number, nothing else. */
export interface AugmentKey {
  readonly seed: number;
  readonly epoch: number;
}

/** Marks augmentation off from other uses of the seed. */
const AUGMENT_STREAM = 0xa096;

/** Writes the augmented example that begins at `start` of `from` to the beginning of `to`. */
export type Augment = (from: TensorData, start: number, to: TensorData, key: AugmentKey, row: number) => void;

/**
 * How examples of a column are augmented.
 * @throws FishyError for a column that is no images: [height, width], or with 1, 3 or 4 channels first or last.
 */
export function augmentationOf(column: Column, { crop = 0, flip = false }: AugmentOptions): Augment {
  const { planes, height, width, planeStride, rowStride, pixelStride } = geometryOf(column);
  return (from, start, to, { seed, epoch }, row) => {
    const random = new Random(hashWords(AUGMENT_STREAM, seed, epoch, row));
    const down = random.below(2 * crop + 1) - crop;
    const right = random.below(2 * crop + 1) - crop;
    const mirrored = flip && random.below(2) === 1;
    const source = from as Float32Array;
    const target = to as Float32Array;
    for (let plane = 0; plane < planes; plane++) {
      for (let y = 0; y < height; y++) {
        const fromY = y + down;
        const at = plane * planeStride + y * rowStride;
        const origin = start + plane * planeStride + fromY * rowStride;
        for (let x = 0; x < width; x++) {
          const fromX = (mirrored ? width - 1 - x : x) + right;
          const isInside = fromY >= 0 && fromY < height && fromX >= 0 && fromX < width;
          target[at + x * pixelStride] = isInside ? (source[origin + fromX * pixelStride] as number) : 0;
        }
      }
    }
  };
}

function geometryOf({ name, dims, isImage }: Column) {
  const isChannels = (dim: number | undefined) => dim === 1 || dim === 3 || dim === 4;
  const [a, b, c] = dims as [number, number, number];
  if (dims.length === 2) return { planes: 1, height: a, width: b, planeStride: 0, rowStride: b, pixelStride: 1 };
  if (dims.length === 3 && (isImage || isChannels(a))) {
    return { planes: a, height: b, width: c, planeStride: b * c, rowStride: c, pixelStride: 1 };
  }
  if (dims.length === 3 && isChannels(c)) {
    return { planes: c, height: a, width: b, planeStride: 1, rowStride: b * c, pixelStride: c };
  }
  throw new FishyError(
    `Column '${name}' has examples of shape [${dims.join(", ")}], which are no images to crop or flip. Leave the augmentation out.`,
  );
}
