/** Comma-separated values with a header (RFC 4180): a column for each, of numbers or of texts. */
import { FishyError } from "../errors.js";
import { DataType } from "../onnx/proto.js";
import { type Column, type Dataset, makeDataset } from "./dataset.js";
import { decodeUtf8 } from "./utf8.js";
import { columnOfValues } from "./values.js";

const NUMBER = /^\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*$/i;
const WHOLE = /^\s*[+-]?\d+\s*$/;

/**
 * Reads a CSV file, or one separated by tabs.
 * @throws FishyError for rows of another length than the header, quotes that do not end, and empty fields.
 */
export function decodeCsv(bytes: Uint8Array, source: string): Dataset {
  const text = decodeUtf8(bytes, source);
  const lines = text.split(/\r?\n/, 1);
  const [first = ""] = lines;
  const separator = first.includes("\t") ? "\t" : ",";
  if (first.includes(";") && !first.includes(separator)) {
    throw new FishyError(
      `${source} is separated by semicolons. Save it with commas or tabs between the fields, and points in the numbers.`,
    );
  }
  const [header, ...rows] = parseCsv(text, separator, source);
  if (!header || rows.length === 0) throw new FishyError(`${source} holds no rows below its header.`);
  if (header.every((field) => NUMBER.test(field))) {
    throw new FishyError(
      `${source} has no header: its first line holds numbers. Put the columns' names into a line above.`,
    );
  }
  for (const [i, row] of rows.entries()) {
    if (row.length !== header.length) {
      throw new FishyError(
        `${source} has ${row.length} fields in row ${i} (rows count from 0); the header has ${header.length}.`,
      );
    }
  }
  return makeDataset(
    source,
    header.map((name, k) =>
      columnOfFields(
        name.trim(),
        rows.map((row) => row[k] as string),
        source,
      ),
    ),
  );
}

function columnOfFields(name: string, fields: readonly string[], source: string): Column {
  const empty = fields.findIndex((field) => field.trim() === "");
  if (empty >= 0) {
    throw new FishyError(
      `Column '${name}' of ${source}, row ${empty} (rows count from 0), is empty. Fill it in or leave the row out.`,
    );
  }
  const isNumber = (field: string) => NUMBER.test(field) || /^\s*[+-]?(nan|inf(inity)?)\s*$/i.test(field);
  if (!fields.some((field) => NUMBER.test(field)))
    return columnOfValues(
      name,
      fields.map((field) => field.trim()),
      { source },
    );
  const odd = fields.findIndex((field) => !isNumber(field));
  if (odd >= 0) {
    throw new FishyError(
      `Column '${name}' of ${source}, row ${odd} (rows count from 0), holds '${fields[odd]}', and other rows hold numbers.`,
    );
  }
  const special = (field: string) =>
    /nan/i.test(field) ? Number.NaN : field.trim().startsWith("-") ? -Infinity : Infinity;
  const numbers = fields.map((field) => (NUMBER.test(field) ? Number(field) : special(field)));
  const isWhole = numbers.every(Number.isSafeInteger);
  // Numbers of many digits, such as keys, stay what they are.
  if (!isWhole && fields.every((field) => WHOLE.test(field))) {
    const exact = fields.map((field) => BigInt(field.trim().replace(/^\+/, "")));
    const wide = exact.findIndex((value) => BigInt.asIntN(64, value) !== value);
    if (wide >= 0) {
      throw new FishyError(
        `Column '${name}' of ${source}, row ${wide} (rows count from 0), holds ${exact[wide]}, which is beyond int64. Write it with a decimal point for float32.`,
      );
    }
    return columnOfValues(name, exact, { source, type: DataType.INT64 });
  }
  return columnOfValues(name, numbers, { source, ...(!isWhole && { type: DataType.FLOAT }) });
}

/** Fields row by row; quoted ones may hold separators, line ends and doubled quotes. Empty lines are left out. */
function parseCsv(text: string, separator: string, source: string): string[][] {
  const rows: string[][] = [];
  let row: string[] = [];
  let at = 0;
  while (at < text.length) {
    let field: string;
    const isQuoted = text[at] === '"';
    if (isQuoted) {
      let end = at + 1;
      while (end < text.length && (text[end] !== '"' || text[end + 1] === '"')) end += text[end] === '"' ? 2 : 1;
      if (end >= text.length)
        throw new FishyError(`${source} ends inside quotes that begin in row ${rows.length - 1} (rows count from 0).`);
      field = text.slice(at + 1, end).replaceAll('""', '"');
      at = end + 1;
      if (at < text.length && text[at] !== separator && text[at] !== "\n" && text[at] !== "\r") {
        throw new FishyError(
          `${source} has text behind the closing quote of '${field}' in row ${rows.length - 1} (rows count from 0). Double a quote that belongs to the text.`,
        );
      }
    } else {
      let end = at;
      while (end < text.length && text[end] !== separator && text[end] !== "\n" && text[end] !== "\r") end++;
      field = text.slice(at, end);
      at = end;
    }
    row.push(field);
    if (text[at] === separator) {
      at++;
      // A separator at the very end is followed by one more, empty field.
      if (at === text.length) row.push("");
      else continue;
    }
    if (row.length > 1 || row[0] !== "" || isQuoted) rows.push(row);
    row = [];
    if (text[at] === "\r") at++;
    if (text[at] === "\n") at++;
  }
  return rows;
}
