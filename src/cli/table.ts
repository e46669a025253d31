/** Plain-text tables. */

/** Columns padded to their widest cell; numbers are right-aligned. */
export function formatTable(header: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const cells = [header, ...rows.map((row) => row.map((cell) => (typeof cell === "number" ? String(cell) : cell)))];
  const widths = header.map((_, i) => Math.max(...cells.map((row) => row[i]?.length ?? 0)));
  const isNumeric = header.map((_, i) => rows.length > 0 && rows.every((row) => typeof row[i] === "number"));
  const lines = cells.map((row) =>
    row
      .map((cell, i) => (isNumeric[i] ? cell.padStart(widths[i] as number) : cell.padEnd(widths[i] as number)))
      .join("  ")
      .trimEnd(),
  );
  return [lines[0], widths.map((width) => "─".repeat(width)).join("  "), ...lines.slice(1)].join("\n");
}

/** 1234567 → `1,234,567`. */
export function formatCount(value: number): string {
  return value.toLocaleString("en-US");
}
