/** Scan, unrolled where the length of the scanned axis is known. */
import { graphOf, intOf, intsOf } from "../../onnx/attributes.js";
import { Body } from "./inline-body.js";
import type { Lowering } from "./lowering.js";
import { dimName, splitSteps, stackSteps, stepsProblem } from "./unrolling.js";

const REVERSE = 1;

export const scan: Lowering = {
  opType: "Scan",
  lower(node, context) {
    if (!node.output.some((name) => name && context.isOnGradientPath(name))) return false;
    const graph = graphOf(node, "body");
    const scanned = intOf(node, "num_scan_inputs");
    if (!graph || scanned === undefined) return context.refuse("it lacks a body or num_scan_inputs");
    const body = new Body(context, graph);
    if (body.problem) return context.refuse(body.problem);
    const { b, types } = context;
    const states = graph.input.length - scanned;
    const sequences = node.input.slice(states).map((name, i) => {
      const shape = types.get(name)?.shape;
      const axis = intsOf(node, "scan_input_axes")?.[i] ?? 0;
      const dim = shape?.[axis < 0 ? axis + shape.length : axis];
      return { name, axis, dim, reversed: intsOf(node, "scan_input_directions")?.[i] === REVERSE };
    });
    const steps = sequences.find(({ dim }) => typeof dim === "number")?.dim;
    if (typeof steps !== "number") {
      const [first] = sequences;
      return context.refuse(
        `its length, dimension ${first?.axis ?? 0} of '${first?.name}', is ${dimName(first?.dim)} at export: only a fixed number of steps can be unrolled. Export the model with a fixed sequence length`,
      );
    }
    if (steps === 0) return context.refuse(`its input '${sequences[0]?.name}' has no steps`);
    const problem = stepsProblem(steps, "it");
    if (problem) return context.refuse(problem);

    const elements = sequences.map(({ name, axis, reversed }) => {
      const list = splitSteps(b, name, axis, steps);
      return reversed ? list.reverse() : list;
    });
    const results: string[][] = graph.output.slice(states).map(() => []);
    let state = node.input.slice(0, states);
    for (let t = 0; t < steps; t++) {
      const outputs = body.emit([...state, ...elements.map((list) => list[t] as string)]);
      state = outputs.slice(0, states);
      for (const [i, list] of results.entries()) list.push(outputs[states + i] as string);
    }
    for (const [i, name] of node.output.entries()) {
      if (!name || !context.isUsed(name)) continue;
      if (i < states) {
        b.node("Identity", [state[i] as string], { outputs: [name] });
        continue;
      }
      const list = results[i - states] as string[];
      if (intsOf(node, "scan_output_directions")?.[i - states] === REVERSE) list.reverse();
      stackSteps(b, list, intsOf(node, "scan_output_axes")?.[i - states] ?? 0, name);
    }
    return true;
  },
};
