/** Images of one size: the shorter side resized, the middle cut out, as torchvision's Resize and CenterCrop do. */
import type { Image } from "./images.js";

/** @param size height and width. */
export function resizeAndCrop(image: Image, size: readonly [number, number]): Image {
  const [height, width] = size;
  if (image.height === height && image.width === width) return image;
  const scale = Math.max(height / image.height, width / image.width);
  const resized = resize(
    image,
    Math.max(height, Math.round(image.height * scale)),
    Math.max(width, Math.round(image.width * scale)),
  );
  const top = Math.round((resized.height - height) / 2);
  const left = Math.round((resized.width - width) / 2);
  const { channels, data } = resized;
  const out = newSamples(image, channels * height * width);
  for (let c = 0; c < channels; c++) {
    for (let y = 0; y < height; y++) {
      const from = (c * resized.height + top + y) * resized.width + left;
      out.set(data.subarray(from, from + width), (c * height + y) * width);
    }
  }
  return { channels, height, width, data: out };
}

/** Bilinear, with the support widened when it shrinks (antialiasing), rounded after each direction: Pillow's BILINEAR. */
export function resize(image: Image, height: number, width: number): Image {
  const { channels } = image;
  const columns = weightsOf(image.width, width);
  const narrow = newSamples(image, channels * image.height * width);
  for (let row = 0; row < channels * image.height; row++) {
    for (let x = 0; x < width; x++)
      narrow[row * width + x] = weighted(image.data, row * image.width, 1, columns[x] as Weights);
  }
  const rows = weightsOf(image.height, height);
  const data = newSamples(image, channels * height * width);
  for (let c = 0; c < channels; c++) {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        data[(c * height + y) * width + x] = weighted(narrow, c * image.height * width + x, width, rows[y] as Weights);
      }
    }
  }
  return { channels, height, width, data };
}

interface Weights {
  readonly first: number;
  readonly values: readonly number[];
}

/** The triangle filter around each output's centre, normalised (Pillow, Resample.c, precompute_coeffs). */
function weightsOf(from: number, to: number): Weights[] {
  const scale = from / to;
  const support = Math.max(1, scale);
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const last = Math.min(from, Math.trunc(centre + support + 0.5));
    const values = Array.from({ length: last - first }, (_, k) =>
      Math.max(0, 1 - Math.abs((first + k - centre + 0.5) / support)),
    );
    const total = values.reduce((sum, value) => sum + value, 0);
    return { first, values: values.map((value) => value / total) };
  });
}

function weighted(data: Uint8Array | Uint16Array, start: number, stride: number, { first, values }: Weights): number {
  let sum = 0;
  for (let k = 0; k < values.length; k++) sum += (values[k] as number) * (data[start + (first + k) * stride] as number);
  return Math.floor(sum + 0.5);
}

function newSamples({ data }: Image, length: number): Uint8Array | Uint16Array {
  return data instanceof Uint16Array ? new Uint16Array(length) : new Uint8Array(length);
}
