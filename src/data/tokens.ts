/** Text as sequences for language models: windows of tokens, and the tokens that follow each. */
import { FishyError } from "../errors.js";
import { DataType } from "../onnx/proto.js";
import { newData, type TensorData } from "../onnx/tensor.js";
import { type Dataset, makeDataset } from "./dataset.js";

/**
 * Cuts a stream of tokens into windows, one after the other: columns `input_ids` [length] and `labels` [length], each
 * label the token after its input.
 * @throws FishyError for a stream shorter than one window and its next token.
 */
export function windowsOf(tokens: TensorData, type: DataType, length: number, source: string): Dataset {
  const count = Math.floor((tokens.length - 1) / length);
  if (count < 1) {
    throw new FishyError(
      `${source} holds ${tokens.length} tokens; one sequence of ${length} and its next token take ${length + 1}.`,
    );
  }
  const column = (name: string, offset: number) => {
    const data = newData(type, count * length) as Uint8Array;
    data.set(tokens.subarray(offset, offset + count * length) as Uint8Array);
    return { name, type, dims: [length], data };
  };
  return makeDataset(source, [column("input_ids", 0), column("labels", 1)]);
}

/** Tokens as uint16, little-endian, one after the other, as nanoGPT's prepare.py writes them. */
export function decodeTokenFile(bytes: Uint8Array, length: number, source: string): Dataset {
  if (bytes.length % 2 !== 0) {
    throw new FishyError(`${source} has ${bytes.length} bytes, an odd number; token files hold uint16 numbers.`);
  }
  const copy = Uint8Array.from(bytes);
  return windowsOf(new Uint16Array(copy.buffer), DataType.UINT16, length, source);
}

/** The bytes of a text in UTF-8 as tokens 0 to 255. */
export function decodeText(bytes: Uint8Array, length: number, source: string): Dataset {
  return windowsOf(Uint8Array.from(bytes), DataType.UINT8, length, source);
}
