/** Loop, unrolled where its trip count and its condition are decided before the graph runs. */
import { graphOf } from "../../onnx/attributes.js";
import { DataType, type ValueInfoProto } from "../../onnx/proto.js";
import { declaredType } from "../../onnx/types.js";
import { Body } from "./inline-body.js";
import type { Lowering, LoweringContext } from "./lowering.js";
import { StaticValues } from "./static-value.js";
import { stackSteps, stepsProblem } from "./unrolling.js";

const REMEDY =
  "Export the model with a loop that runs a fixed number of times (tracing instead of torch.jit.script unrolls it)";

export const loop: Lowering = {
  opType: "Loop",
  lower(node, context) {
    if (!node.output.some((name) => name && context.isOnGradientPath(name))) return false;
    const graph = graphOf(node, "body");
    if (!graph) return context.refuse("it lacks a body");
    const body = new Body(context, graph);
    if (body.problem) return context.refuse(body.problem);
    const { b } = context;
    const values = new StaticValues(context);
    const [count, condition, ...initial] = node.input as [string, string, ...string[]];
    const trips = count ? values.scalar(count) : Number.POSITIVE_INFINITY;
    if (trips === undefined) return context.refuse(`its trip count '${count}' is known at run time only. ${REMEDY}`);
    let runs = condition ? values.scalar(condition) : 1;
    if (runs === undefined) return context.refuse(`its condition '${condition}' is known at run time only. ${REMEDY}`);

    const scans: string[][] = graph.output.slice(1 + initial.length).map(() => []);
    let carried: readonly string[] = initial;
    let steps = 0;
    for (; steps < trips && runs; steps++) {
      const problem = stepsProblem(Number.isFinite(trips) && trips < 2 ** 31 ? trips : steps + 1, "it");
      if (problem) return context.refuse(problem);
      const inputs = [
        like(graph.input[0], context, DataType.INT64, steps),
        like(graph.input[1], context, DataType.BOOL, 1),
        ...carried,
      ];
      const [goesOn, ...results] = body.emit(inputs) as [string, ...string[]];
      runs = values.scalar(goesOn);
      if (runs === undefined) {
        return context.refuse(
          `its condition is computed from data at every step ('${graph.output[0]?.name}' of its body). ${REMEDY}`,
        );
      }
      carried = results.slice(0, initial.length);
      for (const [i, list] of scans.entries()) list.push(results[initial.length + i] as string);
    }
    for (const [i, name] of node.output.entries()) {
      if (!name) continue;
      const scan = scans[i - initial.length];
      if (!scan) b.node("Identity", [carried[i] as string], { outputs: [name] });
      else if (!context.isUsed(name)) continue;
      else if (steps === 0) return context.refuse("it runs no steps, and the shape of its scan output is not known");
      else stackSteps(b, scan, 0, name);
    }
    return true;
  },
};

/** A constant as the body declares its input: a scalar, or a vector of one. */
function like(input: ValueInfoProto | undefined, { b }: LoweringContext, type: DataType, value: number): string {
  const rank = input && declaredType(input)?.shape?.length;
  return b.constant(type, rank === 1 ? [value] : value);
}
