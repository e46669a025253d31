/** Options as JSON, which has no infinity, though some options may be infinite. */

export function stringifyOptions(value: unknown, indent?: number): string {
  const toText = (_key: string, inner: unknown) => (inner === Number.POSITIVE_INFINITY ? "Infinity" : inner);
  return JSON.stringify(value, toText, indent);
}

/** @throws SyntaxError when the text is not JSON. */
export function parseOptionsJson<T>(text: string): T {
  return JSON.parse(text, (_key, inner) => (inner === "Infinity" ? Number.POSITIVE_INFINITY : inner)) as T;
}
