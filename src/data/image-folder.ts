/** A folder of images by class, as torchvision's ImageFolder reads it: `root/cat/1.png`, `root/dog/2.jpg`. */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { FishyError } from "../errors.js";
import { DataType } from "../onnx/proto.js";
import type { ChunkedDataset } from "./chunked.js";
import { makeDataset } from "./dataset.js";
import { decodeImage, IMAGE_FILE } from "./images.js";
import { permutation } from "./random.js";
import { columnOfImages, type ImageOptions } from "./values.js";

/** Images that are read at a time. */
const CHUNK = 256;
/** Marks the order of the files off from other permutations. */
const ORDER_STREAM = 0x1f01;

/** Whether a folder holds folders that hold images. */
export function isImageFolder(path: string): boolean {
  return readdirSync(path).some((name) => {
    const inner = join(path, name);
    return statSync(inner).isDirectory() && readdirSync(inner).some((file) => IMAGE_FILE.test(file));
  });
}

/**
 * Opens the folder: columns `images` and `labels`, the index of the class in the sorted list of folders. The files come
 * in an order that mixes the classes, always the same.
 * @throws FishyError when a folder of a class holds no image.
 */
export function openImageFolder(path: string, images: ImageOptions = {}): ChunkedDataset {
  const classes = readdirSync(path)
    .filter((name) => statSync(join(path, name)).isDirectory())
    .sort();
  const files = classes.flatMap((name, label) => {
    const found = readdirSync(join(path, name))
      .filter((file) => IMAGE_FILE.test(file))
      .sort();
    if (found.length === 0)
      throw new FishyError(`The folder ${join(path, name)} of a class holds no PNG or JPEG images.`);
    return found.map((file) => ({ file: join(path, name, file), label }));
  });
  const order = permutation(files.length, ORDER_STREAM);
  const chunks = Array.from({ length: Math.ceil(files.length / CHUNK) }, (_, i) =>
    Math.min(CHUNK, files.length - i * CHUNK),
  );
  let { channels } = images;
  return {
    name: path,
    length: files.length,
    chunks,
    async read(chunk) {
      const own = Array.from(
        order.subarray(chunk * CHUNK, (chunk + 1) * CHUNK),
        (i) => files[i] as (typeof files)[number],
      );
      const encoded = own.map(({ file }) => ({ bytes: readFileSync(file), source: file }));
      // The first image's channels are those of all, whichever chunk is read first.
      const first = files[order[0] as number]?.file as string;
      channels ??= (await decodeImage(readFileSync(first), first)).channels;
      const column = await columnOfImages("images", encoded, { ...images, channels });
      const labels = BigInt64Array.from(own, ({ label }) => BigInt(label));
      return makeDataset(path, [
        column,
        { name: "labels", type: DataType.INT64, dims: [], data: labels, categories: classes },
      ]);
    },
  };
}
