/** JSON lines: an object for each example, or for each text of a language model's corpus. */
import { FishyError } from "../errors.js";
import { DataType } from "../onnx/proto.js";
import { type Dataset, makeDataset } from "./dataset.js";
import { windowsOf } from "./tokens.js";
import { decodeUtf8 } from "./utf8.js";
import { columnOfValues } from "./values.js";

/** Fields that hold a document's tokens, or its text. */
const TOKEN_FIELDS = ["input_ids", "tokens"];
const TEXT_FIELD = "text";

/**
 * Reads a file of JSON lines. With `sequenceLength`, the documents' tokens (`input_ids`, `tokens`), or the UTF-8 bytes of
 * their `text` with a line end after each, are joined and cut into sequences; otherwise every field is a column.
 * @throws FishyError for a line that is no JSON object, lacks a field, or holds another shape than the first.
 */
export function decodeJsonl(bytes: Uint8Array, sequenceLength: number | undefined, source: string): Dataset {
  const rows = parseLines(bytes, source);
  const names = Object.keys(rows[0] as object);
  if (sequenceLength !== undefined) {
    const field = TOKEN_FIELDS.find((name) => names.includes(name));
    if (field !== undefined) return windowsOf(joinTokens(rows, field, source), DataType.INT32, sequenceLength, source);
    if (names.includes(TEXT_FIELD)) {
      const texts = rows.map((row) => String(row[TEXT_FIELD] ?? ""));
      return windowsOf(new TextEncoder().encode(`${texts.join("\n")}\n`), DataType.UINT8, sequenceLength, source);
    }
    throw new FishyError(
      `The lines of ${source} hold ${names.join(", ")}, but no tokens (${TOKEN_FIELDS.join(", ")}) and no ${TEXT_FIELD} to make sequences of.`,
    );
  }
  for (const [i, row] of rows.entries()) {
    const missing = names.find((name) => !(name in row));
    const further = Object.keys(row).find((name) => !names.includes(name));
    if (missing === undefined && further === undefined) continue;
    throw new FishyError(
      `Line ${i + 1} of ${source} ${missing === undefined ? `has a field '${further}' that the first line lacks` : `lacks the field '${missing}'`}.`,
    );
  }
  return makeDataset(
    source,
    names.map((name) =>
      columnOfValues(
        name,
        rows.map((row) => row[name]),
        { source },
      ),
    ),
  );
}

function parseLines(bytes: Uint8Array, source: string): Record<string, unknown>[] {
  const lines = decodeUtf8(bytes, source).split("\n");
  const rows = lines.flatMap((line, i) => {
    if (line.trim() === "") return [];
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch {
      throw new FishyError(`Line ${i + 1} of ${source} is not JSON.`);
    }
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw new FishyError(`Line ${i + 1} of ${source} is no JSON object.`);
    }
    return [value as Record<string, unknown>];
  });
  if (rows.length === 0) throw new FishyError(`${source} holds no lines.`);
  return rows;
}

function joinTokens(rows: readonly Record<string, unknown>[], field: string, source: string): Int32Array {
  const lists = rows.map((row, i) => {
    const list = row[field];
    if (!Array.isArray(list) || !list.every((token) => Number.isInteger(token) && token >= 0 && token < 2 ** 31)) {
      throw new FishyError(`'${field}' in line ${i + 1} of ${source} is no list of tokens (whole numbers from 0).`);
    }
    return list as number[];
  });
  const tokens = new Int32Array(lists.reduce((sum, list) => sum + list.length, 0));
  let at = 0;
  for (const list of lists) {
    tokens.set(list, at);
    at += list.length;
  }
  return tokens;
}
