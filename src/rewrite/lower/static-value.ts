/** Values of counters, conditions and positions that are decided before the graph runs. */
import { constantValue, type ShapeValue, valueOfNode } from "../../onnx/shape-values.js";
import type { LoweringContext } from "./lowering.js";

/** Follows values back through the nodes that make them. */
export class StaticValues {
  private readonly known = new Map<string, ShapeValue | undefined>();

  constructor(private readonly context: LoweringContext) {}

  /** The number, or the one element, that a value always is; booleans as 0 and 1. */
  scalar(name: string): number | undefined {
    const value = this.value(name);
    const [element, ...others] = value?.elements ?? [];
    return typeof element === "number" && others.length === 0 ? element : undefined;
  }

  private value(name: string): ShapeValue | undefined {
    if (this.known.has(name)) return this.known.get(name);
    const { constantOf, producer, types } = this.context;
    this.known.set(name, undefined);
    const node = producer(name);
    const scope = {
      shapeOf: (input: string) => types.get(input)?.shape,
      valueOf: (input: string) => this.value(input),
    };
    const value = constantValue(constantOf(name)) ?? (node && valueOfNode(node, scope));
    this.known.set(name, value);
    return value;
  }
}
