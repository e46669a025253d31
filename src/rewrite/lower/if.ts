/**
 * If: the branch that is always taken where the condition never changes; otherwise both branches, of which Where
 * selects. Both are then computed in every run, and a branch that is not taken must not fail.
 */
import { graphOf } from "../../onnx/attributes.js";
import { Body } from "./inline-body.js";
import type { Lowering } from "./lowering.js";
import { StaticValues } from "./static-value.js";

export const ifElse: Lowering = {
  opType: "If",
  lower(node, context) {
    const { b, types } = context;
    if (!node.output.some((name) => name && context.isOnGradientPath(name))) return false;
    const condition = node.input[0] as string;
    const branches = [graphOf(node, "then_branch"), graphOf(node, "else_branch")].map(
      (graph) => graph && new Body(context, graph),
    );
    const [taken, other] = branches;
    if (!taken || !other) return context.refuse("it lacks a branch");
    const problem = taken.problem ?? other.problem;
    if (problem) return context.refuse(problem);

    const decided = new StaticValues(context).scalar(condition);
    if (decided !== undefined) {
      const results = (decided ? taken : other).emit([]);
      for (const [i, name] of node.output.entries())
        if (name) b.node("Identity", [results[i] as string], { outputs: [name] });
      return true;
    }
    for (const name of node.output) {
      const shape = name ? types.get(name)?.shape : [];
      if (shape && !shape.includes(null)) continue;
      return context.refuse(
        `its condition '${condition}' is known at run time only, and its branches give '${name}' different shapes, or shapes that are not known. Export the model with the branch decided (tracing instead of torch.jit.script or torch.cond), or give both branches one shape`,
      );
    }
    const scalar = types.get(condition)?.shape?.length === 0 ? condition : b.reshape(condition, []);
    const [yes, no] = [taken.emit([]), other.emit([])];
    for (const [i, name] of node.output.entries()) {
      if (name) b.node("Where", [scalar, yes[i] as string, no[i] as string], { outputs: [name] });
    }
    return true;
  },
};
