/** Activations newer than opset 18, by their definitions. */
import { floatOf, stringOf } from "../attributes.js";
import { CannotConvert, type OpsetRule, scalarLike } from "./rule.js";

/**
 * x · Φ(x) with Φ the standard normal distribution, or its tanh approximation
 * (D. Hendrycks and K. Gimpel, "Gaussian Error Linear Units", arXiv:1606.08415).
 */
export const lowerGelu: OpsetRule = {
  operators: ["Gelu"],
  since: 20,
  needsTypes: true,
  convert: (node, context) => {
    const { g } = context;
    const x = node.input[0] as string;
    const scalar = (value: number) => scalarLike(context, x, value);
    const approximate = stringOf(node, "approximate", "none");
    let squashed: string;
    if (approximate === "none") squashed = g.op("Erf", [g.mul(x, scalar(Math.SQRT1_2))]);
    else if (approximate === "tanh") {
      const cube = g.mul(g.mul(x, x), x);
      const inner = g.mul(g.add(x, g.mul(cube, scalar(0.044715))), scalar(Math.sqrt(2 / Math.PI)));
      squashed = g.op("Tanh", [inner]);
    } else throw new CannotConvert(`has the unknown approximation '${approximate}'`);
    g.node("Mul", [g.mul(x, scalar(0.5)), g.add(squashed, scalar(1))], { outputs: node.output });
    return undefined;
  },
};

/** x · σ(αx). Asks for no types: ONNX Runtime loads Swish in models of opset 24 only. */
export const lowerSwish: OpsetRule = {
  operators: ["Swish"],
  since: 24,
  convert: (node, context) => {
    const { g } = context;
    const x = node.input[0] as string;
    const alpha = floatOf(node, "alpha", 1);
    const gate = g.op("Sigmoid", [alpha === 1 ? x : g.mul(x, scalarLike(context, x, alpha))]);
    g.node("Mul", [x, gate], { outputs: node.output });
    return undefined;
  },
};
