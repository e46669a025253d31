/**
 * A step in two places: one device runs forward and backward passes and the update, another keeps the statistics and
 * refreshes the roots (the model parallelism of the paper). The graphs of both, and what goes from one to the other.
 */
import { UsageError } from "../errors.js";
import { DataType } from "../onnx/proto.js";
import type { Optimizer, StateSpec, StepValues } from "../optimizers/optimizer.js";
import { type PartInput, type PartProgram, partProgram } from "../optimizers/program.js";
import type { TrainingProgram } from "../rewrite/manifest.js";

/** Gradients that leave the graph of a step. */
type SentRole = "gradient" | "statisticsGradient";

export interface PreconditionerParts {
  /** For the second device. */
  readonly statistics: PartProgram;
  readonly roots: PartProgram | undefined;
  /** For the first, at steps whose roots it has to wait for: the update from gradients that are there already. */
  readonly update: PartProgram;
  /** State that the second device keeps. */
  readonly owned: ReadonlySet<string>;
  /** What of it the update reads. */
  readonly returned: readonly string[];
  /** The optimizer of steps without roots: where statistics are due, their gradients are sent. */
  readonly whole: Optimizer;
  /** The optimizer of steps with roots: it sends gradients and updates nothing. */
  readonly gradients: Optimizer;
}

const SENT = "sent/";

/** The state under which a gradient leaves the graph. */
export function sentName(role: SentRole, name: string): string {
  return `${SENT}${role}/${name}`;
}

/** Whether a state's name is that of a gradient that leaves the graph. */
export function isSent(state: string): boolean {
  return state.startsWith(SENT);
}

/** @throws UsageError where the statistics cannot be taken elsewhere. */
export function splitOptimizer({ manifest }: TrainingProgram, optimizer: Optimizer): PreconditionerParts {
  const statistics = partProgram(optimizer, "statistics");
  const roots = partProgram(optimizer, "roots");
  const update = partProgram(optimizer, "update") as PartProgram;
  if (!statistics) {
    throw new UsageError(
      `${optimizer.name} keeps no statistics, so there is nothing for a second device to do (preconditionerDevice).`,
    );
  }
  if (manifest.draw === "expected" && optimizer.statisticsSource === "sampled") {
    throw new UsageError(
      "Expected statistics (--draw expected) are taken from layers' inputs, which stay on the first device. Draw samples (--draw exact), or leave preconditionerDevice out.",
    );
  }
  const outputsOf = (part: PartProgram | undefined) =>
    [...(part?.outputs.values() ?? [])].filter(({ role }) => role === "state").map(({ name }) => name);
  const owned = new Set([...outputsOf(statistics), ...outputsOf(roots)]);
  const inputsOf = (part: PartProgram, role: PartInput["role"]) =>
    [...part.inputs.values()].filter((input) => input.role === role).map(({ name }) => name);

  const dims = new Map(optimizer.parameters.map((parameter) => [parameter.name, parameter.dims]));
  const spec = (role: SentRole, name: string): StateSpec => ({
    name: sentName(role, name),
    type: DataType.FLOAT,
    dims: dims.get(name) ?? [],
    init: () => new Float32Array((dims.get(name) ?? []).reduce((product, dim) => product * dim, 1)),
  });
  const sent = (part: PartProgram, role: SentRole) => inputsOf(part, role).map((name) => ({ role, name }));
  const forStatistics = [...sent(statistics, "statisticsGradient"), ...sent(statistics, "gradient")];
  const forUpdate = sent(update, "gradient");
  const specs = new Map(
    [...forStatistics, ...forUpdate].map(({ role, name }) => [sentName(role, name), spec(role, name)]),
  );
  const emit = (gradients: readonly { role: SentRole; name: string }[], values: StepValues) => ({
    parameters: new Map<string, string>(),
    state: new Map(gradients.map(({ role, name }) => [sentName(role, name), values[role](name)])),
  });

  const { emitRoots: _, ...rest } = optimizer;
  const whole: Optimizer = {
    ...rest,
    state: [...optimizer.state, ...specs.values()],
    emitStatistics: (_b, values) => emit(forStatistics, values),
  };
  return {
    ...{ statistics, roots, update, owned, whole },
    returned: inputsOf(update, "state").filter((name) => owned.has(name)),
    gradients: { ...whole, emitUpdate: (_b, values) => emit(forUpdate, values) },
  };
}
