/** ONNX Loop, written as a function of the carried values. */
import { type GraphBuilder, type ValueType, valueInfo } from "../../onnx/builder.js";
import { DataType } from "../../onnx/proto.js";

export interface Carried {
  readonly value: string;
  readonly type: ValueType;
}

/**
 * Repeats `body` at most `trips` times (a number, or an int64 scalar), and as long as the condition (a bool scalar) it returns holds.
 * @param initial the carried values before the first round; their types hold for every round.
 * @param first whether to start at all; always when left out.
 * @returns the carried values after the last round.
 */
export function emitLoop<K extends string>(
  b: GraphBuilder,
  trips: number | string,
  initial: Readonly<Record<K, Carried>>,
  body: (inner: GraphBuilder, values: Readonly<Record<K, string>>) => { again: string; values: Record<K, string> },
  first?: string,
): Record<K, string> {
  const keys = Object.keys(initial) as K[];
  const inner = b.subgraph("body");
  const input = (hint: string, type: ValueType): string => {
    const name = inner.unique(hint);
    inner.graph.input.push(valueInfo(name, type));
    return name;
  };
  input("round", { elemType: DataType.INT64, shape: [] });
  input("again", { elemType: DataType.BOOL, shape: [] });
  const values = {} as Record<K, string>;
  for (const key of keys) values[key] = input(key, initial[key].type);
  const result = body(inner, values);
  inner.output(inner.op("Identity", [result.again]), { elemType: DataType.BOOL, shape: [] });
  for (const key of keys) inner.output(inner.op("Identity", [result.values[key]]), initial[key].type);
  const outputs = b.node(
    "Loop",
    [typeof trips === "string" ? trips : b.i64(trips), first ?? "", ...keys.map((key) => initial[key].value)],
    {
      outputs: keys.length,
      attributes: { body: inner.graph },
    },
  );
  return Object.fromEntries(keys.map((key, i) => [key, outputs[i]])) as Record<K, string>;
}

/**
 * The same without a Loop, for devices that have none: the body `trips` times, whatever it says of going on. A round
 * more than needed must therefore do no harm.
 */
export const emitUnrolled: typeof emitLoop = (b, trips, initial, body) => {
  if (typeof trips === "string") throw new Error("only a known number of rounds can be unrolled");
  const keys = Object.keys(initial) as (keyof typeof initial)[];
  let values = Object.fromEntries(keys.map((key) => [key, initial[key].value])) as Record<keyof typeof initial, string>;
  for (let trip = 0; trip < trips; trip++) values = body(b, values).values;
  return values;
};
