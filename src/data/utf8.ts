/** Texts of files. */
import { FishyError } from "../errors.js";

/**
 * The text of a file in UTF-8: in another encoding different texts would become one.
 * @throws FishyError for bytes that are no UTF-8.
 */
export function decodeUtf8(bytes: Uint8Array, source: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new FishyError(`${source} is no text in UTF-8. Save it in that encoding.`);
  }
}
