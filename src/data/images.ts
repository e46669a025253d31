/** PNG and JPEG files as pixels: channels first, as PyTorch's models take them. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import decodeJpeg, { init as initJpeg } from "@jsquash/jpeg/decode.js";
import { convertIndexedToRgb, decode as decodePng } from "fast-png";
import { FishyError, messageOf } from "../errors.js";

/** An image of `channels` (1 grey, 3 red, green, blue) planes of height × width, row by row. */
export interface Image {
  readonly channels: number;
  readonly height: number;
  readonly width: number;
  readonly data: Uint8Array | Uint16Array;
}

/** File names that are images. */
export const IMAGE_FILE = /\.(png|jpe?g)$/i;

/**
 * Decodes an image; transparency is dropped.
 * @param source what to call it in an error.
 * @throws FishyError when it is neither PNG nor JPEG, or damaged.
 */
export async function decodeImage(bytes: Uint8Array, source: string): Promise<Image> {
  const isPng = bytes[0] === 0x89 && bytes[1] === 0x50;
  const isJpeg = bytes[0] === 0xff && bytes[1] === 0xd8;
  if (!isPng && !isJpeg) throw new FishyError(`${source} is neither a PNG nor a JPEG image.`);
  try {
    return isPng ? fromPng(bytes) : await fromJpeg(bytes);
  } catch (error) {
    throw new FishyError(`${source} is not a whole ${isPng ? "PNG" : "JPEG"} image: ${messageOf(error)}.`);
  }
}

function fromPng(bytes: Uint8Array): Image {
  const png = decodePng(bytes);
  const { width, height, depth } = png;
  if (png.palette) {
    const rgb = convertIndexedToRgb(png);
    return planes(rgb, width, height, rgb.length / (width * height));
  }
  const data = depth < 8 ? unpacked(png.data as Uint8Array, width, height, depth) : png.data;
  return planes(data as Uint8Array | Uint16Array, width, height, png.channels);
}

/** Grey levels of 1, 2 or 4 bits as bytes; rows begin at whole bytes. */
function unpacked(packed: Uint8Array, width: number, height: number, depth: number): Uint8Array {
  const stride = Math.ceil((width * depth) / 8);
  const largest = 2 ** depth - 1;
  const data = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const bit = x * depth;
      const byte = packed[y * stride + (bit >> 3)] as number;
      data[y * width + x] = ((byte >> (8 - depth - (bit & 7))) & largest) * (255 / largest);
    }
  }
  return data;
}

/** The types of Node do not know WebAssembly without those of the browser. */
const { WebAssembly } = globalThis as unknown as { WebAssembly: { compile(bytes: Uint8Array): Promise<object> } };
/** The package's own type leaves the second argument out. */
const start = initJpeg as (module: object, options: { printErr(text: string): void }) => Promise<void>;

/** What the decoder says of the image that it decodes. */
let complaints: string[] = [];
let jpeg: Promise<void> | undefined;
/** Decodings follow one another, so that complaints are of the right image. */
let decoding: Promise<unknown> = Promise.resolve();

/** mozjpeg, as WebAssembly: the bits that libjpeg gives Pillow and torchvision. */
async function loadJpeg(): Promise<void> {
  const path = createRequire(import.meta.url).resolve("@jsquash/jpeg/codec/dec/mozjpeg_dec.wasm");
  const module = await WebAssembly.compile(readFileSync(path));
  await start(module, { printErr: (text: string) => complaints.push(text) });
}

function fromJpeg(bytes: Uint8Array): Promise<Image> {
  const image = decoding.then(() => decodeNext(bytes));
  decoding = image.catch(() => undefined);
  return image;
}

async function decodeNext(bytes: Uint8Array): Promise<Image> {
  jpeg ??= loadJpeg();
  await jpeg;
  complaints = [];
  const scope = globalThis as { ImageData?: unknown };
  // The decoder returns the browser's ImageData, which Node does not have.
  const isMissing = scope.ImageData === undefined;
  if (isMissing) scope.ImageData = Pixels;
  let decoded: Pixels;
  try {
    decoded = (await decodeJpeg(bytes as unknown as ArrayBuffer)) as unknown as Pixels;
  } catch {
    throw new Error(complaints[0] ?? "it cannot be decoded");
  } finally {
    if (isMissing) delete scope.ImageData;
  }
  const cutOff = complaints.find((text) => /premature end/i.test(text));
  if (cutOff) throw new Error(cutOff);
  const { data, width, height } = decoded;
  const rgba = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return jpegComponents(bytes) === 1 ? planes(rgba, width, height, 4, 1) : planes(rgba, width, height, 4);
}

class Pixels {
  constructor(
    readonly data: Uint8ClampedArray,
    readonly width: number,
    readonly height: number,
  ) {}
}

/** The number of colour components that the frame header (SOF) tells (ITU T.81, B.2.2). */
function jpegComponents(bytes: Uint8Array): number {
  for (let at = 2; at + 9 < bytes.length; ) {
    if (bytes[at] !== 0xff) break;
    const marker = bytes[at + 1] as number;
    const isFrame = marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
    if (isFrame) return bytes[at + 9] as number;
    at += 2 + ((bytes[at + 2] as number) << 8) + (bytes[at + 3] as number);
  }
  return 3;
}

/** Interleaved samples as planes: grey of one or two, red, green and blue of three or four; the last of an even number is alpha. */
function planes(
  data: Uint8Array | Uint16Array,
  width: number,
  height: number,
  stride: number,
  channels = stride < 3 ? 1 : 3,
): Image {
  const size = width * height;
  const out = data instanceof Uint16Array ? new Uint16Array(size * channels) : new Uint8Array(size * channels);
  for (let c = 0; c < channels; c++) {
    for (let i = 0, from = c; i < size; i++, from += stride) out[c * size + i] = data[from] as number;
  }
  return { channels, height, width, data: out };
}

/** The image in grey or in colour; grey levels of colours are ITU-R 601-2 luma, rounded as Pillow does. */
export function withChannels(image: Image, channels: number): Image {
  if (image.channels === channels) return image;
  const { height, width, data } = image;
  const size = height * width;
  const out = data instanceof Uint16Array ? new Uint16Array(size * channels) : new Uint8Array(size * channels);
  if (image.channels === 1) for (let c = 0; c < channels; c++) out.set(data, c * size);
  else {
    for (let i = 0; i < size; i++) {
      const [r, g, b] = [data[i], data[size + i], data[2 * size + i]] as [number, number, number];
      out[i] = (r * 19595 + g * 38470 + b * 7471 + 0x8000) / 65536;
    }
  }
  return { channels, height, width, data: out };
}
